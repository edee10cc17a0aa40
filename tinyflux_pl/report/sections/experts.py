"""Experts of a run: their losses and gates, and the attention of Sol beside the student's."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import safe_open

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import TinyFluxError
from tinyflux_pl.experts.sol_statistics import STATISTICS
from tinyflux_pl.report import chart, colour_map, figures
from tinyflux_pl.report.importance import Importance
from tinyflux_pl.report.markup import Markup, join, tag
from tinyflux_pl.report.page import grid
from tinyflux_pl.report.pictures import evenly
from tinyflux_pl.report.run_files import RunFiles
from tinyflux_pl.report.sections import headline, learning

GATE = "_gate"
NUM_SAMPLES, NUM_TIMES = 4, 8
WEIGHT_FILES = ("model.safetensors", "ema.safetensors")  # the averages, where there are any, last


def section(run: RunFiles, by_panel: learning.Panels) -> Markup:
    """The charts of the terms, and the gates of the newest checkpoint."""
    charts = learning.section(by_panel, "experts")
    return join([charts, _gates(run)]) if run.experts else charts


def importance(sides: Importance) -> Markup:
    """Maps of a few samples at a few times, and the averages over all samples."""
    times = evenly(range(len(sides.times)), NUM_TIMES)
    high = max(float(sides.maps[:NUM_SAMPLES, times].quantile(0.995)), 1.0)
    cells = [tag("div"), tag("div")]
    cells += [tag("div", f"t = {sides.times[k]:g}", class_="head") for k in times]
    for n, caption in enumerate(sides.captions[:NUM_SAMPLES]):
        cells += _sample(sides, n, caption, times, high)
    columns = f"grid-template-columns: 104px 52px repeat({len(times)}, minmax(52px, 92px))"
    scale = colour_map.scale_shot().image("colour scale from dark to light")
    legend = tag("div", "0", scale, f"{high:.1f} times the mean", class_="colours")
    maps = tag(
        "div",
        tag("div", tag("div", cells, class_="maps", style=columns), class_="scroll"),
        legend,
        class_="card",
    )
    return join([maps, tag("div", grid(*_averages(sides)), style="margin-top:16px")])


def _sample(sides: Importance, n: int, caption: str, times: list[int], high: float) -> list[Markup]:
    """The picture, and a row of maps for each side."""
    picture = None
    if sides.pixels is not None:
        picture = colour_map.picture_shot(sides.pixels[n]).image(caption)
    first = tag(
        "div",
        picture or caption,
        tag("div", caption) if picture else None,
        style="grid-row: span 2",
    )
    rows = [first]
    for side, maps in (("Sol", sides.maps), ("student", sides.predicted)):
        rows.append(tag("div", side))
        for k in times:
            alt = f"{side}, t = {sides.times[k]:g}: {caption}"
            rows.append(colour_map.map_shot(maps[n, k], high).image(alt))
    return rows


def _averages(sides: Importance) -> list[Markup]:
    """Agreement of the maps over t, and each statistic of both sides."""
    label = "t: 0 noise, 1 data"
    count = f"mean of {len(sides.captions)} samples"
    agreement = {"name": "Sol and student", "x": sides.times, "y": _plain(sides.correlations())}
    drawn = [
        chart.figure(
            "agreement",
            "Correlation of the two maps",
            [agreement],
            count,
            zero=True,
            most=1.0,
            x_label=label,
        )
    ]
    teacher, student = sides.stats.mean(0), sides.predicted_stats.mean(0)
    for index, name in enumerate(STATISTICS[: teacher.shape[-1]]):
        series = [
            {"name": "Sol", "x": sides.times, "y": _plain(teacher[:, index].tolist())},
            {"name": "student", "x": sides.times, "y": _plain(student[:, index].tolist())},
        ]
        drawn.append(
            chart.figure(f"stat-{name}", f"Attention: {name}", series, count, x_label=label)
        )
    return drawn


def _plain(values: list[float]) -> list[float | None]:
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values]


def _gates(run: RunFiles) -> Markup:
    """The sigmoid of each learned gate of the newest checkpoint."""
    if not run.checkpoints:
        return Markup()
    newest = run.checkpoints[-1]
    rows = {
        name.removeprefix("net."): f"{figures.percent(value)}"
        for file in WEIGHT_FILES
        for name, value in _scalar_gates(newest.path / file).items()
    }
    if not rows:
        return Markup()
    title = tag("h3", f"Gates at step {newest.step:,}", style="margin-top:0")
    return tag("div", title, headline.facts(rows), class_="card", style="margin-top:16px")


def _scalar_gates(path: Path) -> dict[str, float]:
    """Name -> share of every scalar gate in a file of weights; none where it cannot be read."""
    try:
        files.require_tensor_file(path)
        with safe_open(path, "pt") as tensors:
            names = [name for name in tensors.keys() if name.endswith(GATE)]  # noqa: SIM118
            values = {name: tensors.get_tensor(name) for name in names}
    except (OSError, TinyFluxError):
        return {}
    return {n: float(v.float().sigmoid()) for n, v in values.items() if v.numel() == 1}
