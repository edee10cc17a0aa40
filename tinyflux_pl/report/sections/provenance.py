"""Where the results come from: versions, commit, machine, checkpoints by hash, caches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyflux_pl.checkpoints.description import config_of
from tinyflux_pl.core.errors import TinyFluxError
from tinyflux_pl.report import figures
from tinyflux_pl.report.markup import Markup, tag
from tinyflux_pl.report.page import grid
from tinyflux_pl.report.run_files import RunFiles
from tinyflux_pl.report.sections import headline


def section(run: RunFiles) -> Markup:
    """Cards of the environment, of the data, and of the checkpoints."""
    return grid(_environment(run.environment), _data(run), _checkpoints(run))


def _environment(environment: Mapping[str, Any]) -> Markup:
    rows = {
        str(name): str(value)
        for name, value in environment.items()
        if not isinstance(value, Mapping | list) and value is not None
    }
    versions = environment.get("versions")
    if isinstance(versions, Mapping):
        rows |= {str(name): str(value) for name, value in versions.items()}
    return _card("Software and machine", rows)


def _data(run: RunFiles) -> Markup:
    rows: dict[str, object] = {"data": run.get("data", "name")}
    try:
        description = config_of(run.folder) if run.checkpoints else {}
    except (TinyFluxError, OSError) as error:
        description = {}
        rows["checkpoint"] = str(error).splitlines()[0]
    caches = description.get("caches")
    if isinstance(caches, Mapping):
        rows |= {f"cache of {name}": digest for name, digest in caches.items()}
    for part in ("denoiser", "codec", "text", "path"):
        node = description.get(part)
        if isinstance(node, Mapping):
            rows[part] = node.get("name")
    rows["starts"] = len(run.starts)
    return _card("Data and parts", {k: v for k, v in rows.items() if v is not None})


def _checkpoints(run: RunFiles) -> Markup:
    if not run.checkpoints:
        return Markup()
    head = [
        tag("th", "checkpoint"),
        tag("th", "step", class_="number"),
        tag("th", "hash"),
        tag("th", "size", class_="number"),
    ]
    rows = [
        tag(
            "tr",
            tag("td", saved.path.name),
            tag("td", f"{saved.step:,}", class_="number"),
            tag("td", tag("code", saved.hash)),
            tag("td", figures.size(saved.num_bytes), class_="number"),
        )
        for saved in run.checkpoints
    ]
    table = tag("table", tag("thead", tag("tr", head)), tag("tbody", rows))
    title = tag("h3", "Checkpoints", style="margin-top:0")
    return tag("div", title, tag("div", table, class_="scroll"), class_="card wide")


def _card(title: str, rows: Mapping[str, object]) -> Markup:
    if not rows:
        return Markup()
    return tag("div", tag("h3", title, style="margin-top:0"), headline.facts(rows), class_="card")
