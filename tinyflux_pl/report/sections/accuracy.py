"""Prompt accuracy by attribute and split, and how far pictures lie from training pictures."""

from __future__ import annotations

from collections.abc import Mapping

from tinyflux_pl.report import figures
from tinyflux_pl.report.markup import Markup, join, tag
from tinyflux_pl.report.page import grid
from tinyflux_pl.report.run_files import RunFiles
from tinyflux_pl.report.sections import headline, learning

ALL = "all"


def section(run: RunFiles, by_panel: learning.Panels) -> Markup:
    """The table of attributes, the previews' curve, the distances."""
    splits = headline.accuracies(run)
    parts = [
        _attributes(splits),
        _readings(run),
        learning.section(by_panel, "accuracy"),
        _novelty(run),
    ]
    return tag("div", [part for part in parts if part], class_="stack") if any(parts) else Markup()


def _attributes(splits: Mapping[str, Mapping[str, float]]) -> Markup:
    if not splits:
        return Markup()
    claims = list(dict.fromkeys(claim for shares in splits.values() for claim in shares))
    claims.sort(key=lambda claim: claim != ALL)
    several = headline.several_sources(splits)
    names = [headline.title_of(name, several) for name in splits]
    head = tag("tr", tag("th", "attribute"), [tag("th", name) for name in names])
    rows = []
    for claim in claims:
        cells = [_cell(shares.get(claim), rank) for rank, shares in enumerate(splits.values())]
        label = "everything" if claim == ALL else claim.replace("_", " ")
        rows.append(tag("tr", tag("th", label, scope="row"), cells))
    table = tag("table", tag("thead", head), tag("tbody", rows), class_="shares")
    return tag("div", tag("div", table, class_="scroll"), class_="card")


def _cell(share: float | None, colour: int) -> Markup:
    if share is None:
        return tag("td", "–")
    style = f"width:{100 * share:.2f}%;--colour:var(--series-{colour % 8})"
    bar = tag("div", tag("i", style=style), class_="bar")
    return tag("td", figures.percent(share), bar)


def _readings(run: RunFiles) -> Markup:
    """Readable share and mean fit of the same pictures, where they were measured."""
    content = run.results.get("readings")
    if not isinstance(content, Mapping):
        return Markup()
    rows = [(str(n), dict(v)) for n, v in content.items() if isinstance(v, Mapping)]
    keys = list(dict.fromkeys(key for _, values in rows for key in values))
    if not keys:
        return Markup()
    head = tag(
        "tr", tag("th", "read by the verifier"), [tag("th", str(k).replace("_", " ")) for k in keys]
    )
    several = headline.several_sources(dict(rows))
    body = [
        tag(
            "tr",
            tag("th", headline.title_of(name, several), scope="row"),
            [tag("td", figures.percent(values.get(key))) for key in keys],
        )
        for name, values in rows
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", body)), class_="card")


def _novelty(run: RunFiles) -> Markup:
    """Quantiles of the distance to the nearest training picture."""
    content = run.results.get("novelty")
    if not isinstance(content, Mapping) or not content:
        return Markup()
    rows = [
        (f"{headline.split_label(str(name))}: {str(kind).replace('_', ' ')}", quantiles)
        for name, kinds in content.items()
        if isinstance(kinds, Mapping)
        for kind, quantiles in kinds.items()
        if isinstance(quantiles, Mapping)
    ]
    keys = sorted({str(key) for _, quantiles in rows for key in quantiles})
    head = tag(
        "tr",
        tag("th", "distance to the nearest training picture"),
        [tag("th", f"quantile {key}", class_="number") for key in keys],
    )
    body = [
        tag(
            "tr",
            tag("th", label, scope="row"),
            [tag("td", figures.short(quantiles.get(key), 3), class_="number") for key in keys],
        )
        for label, quantiles in rows
    ]
    return join(
        [grid(tag("div", tag("table", tag("thead", head), tag("tbody", body)), class_="card wide"))]
    )
