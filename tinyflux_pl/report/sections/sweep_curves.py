"""Curves of a sweep's arms with bands over seeds, and its jobs as parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinyflux_pl.report import arms as grouping
from tinyflux_pl.report import chart
from tinyflux_pl.report.arms import Arm
from tinyflux_pl.report.markup import Markup, data_block, join, tag
from tinyflux_pl.report.page import grid
from tinyflux_pl.report.sweep_files import RESULTS, Job, SweepFiles

CURVES = (  # metric, title, axis, unit of the script, log switch, from zero
    ("validation/loss", "Validation loss", "mean squared error", "plain", "off", False),
    ("train/loss", "Training loss", "total", "plain", "off", False),
    ("preview/accuracy_all", "Accuracy of the previews", "share", "percent", None, True),
    ("train/gradient_norm", "Gradient norm", "L2, before clipping", "plain", "off", False),
    ("train/images_per_second", "Throughput", "images/s", "plain", None, True),
)
WIDE_RANGE = 50  # a numeric axis whose ends differ by this factor is logarithmic


def section(arms: Sequence[Arm]) -> Markup:
    """A chart for each metric that some job has logged."""
    drawn = []
    for metric, title, axis, unit, log, zero in CURVES:
        series = [
            {**plain, "colour": rank % 8}
            for rank, arm in enumerate(arms)
            if (plain := grouping.band(arm, metric))
        ]
        if series:
            key = metric.replace("/", "-")
            wide = metric == grouping.VALIDATION
            drawn.append(chart.figure(key, title, series, axis, unit, log, zero, wide=wide))
    return grid(*drawn)


def parallel(sweep: SweepFiles, arms: Sequence[Arm]) -> Markup:
    """A line a job through the swept keys and the results; empty if nothing was swept."""
    if len(sweep.jobs) < 2 or not sweep.swept:
        return Markup()
    axes = [_key_axis(key, sweep.jobs) for key in sweep.swept]
    for name, (label, _) in RESULTS.items():
        values = [_finite(job.result(name)) for job in sweep.jobs]
        if any(value is not None for value in values):
            unit = "plain" if name == "validation_loss" else "percent"
            axes.append({"name": label, "numbers": values, "unit": unit})
    colours = {job.number: rank % 8 for rank, arm in enumerate(arms) for job in arm.jobs}
    jobs = [{"label": f"job {job.number}", "colour": colours[job.number]} for job in sweep.jobs]
    element = tag("div", class_="parallel plot", data_parallel="parallel-data")
    legend = [
        tag(
            "span",
            tag("i", class_="key", style=f"--colour:var(--series-{rank % 8})"),
            arm.label,
            class_="entry",
        )
        for rank, arm in enumerate(arms)
    ]
    body = [tag("div", legend, class_="legend"), element]
    return join(
        [tag("div", body, class_="card"), data_block("parallel-data", {"axes": axes, "jobs": jobs})]
    )


def _key_axis(key: str, jobs: Sequence[Job]) -> dict[str, Any]:
    """The axis of a key: numeric if every value is a number, else a point a value."""
    words = [job.overrides.get(key) for job in jobs]
    numbers = [_number(word) for word in words]
    if all(number is not None for number in numbers) and key != grouping.SEED:
        low, high = min(numbers), max(numbers)  # type: ignore[type-var]
        log = low > 0 and high / low >= WIDE_RANGE
        return {"name": key, "numbers": numbers, "unit": "plain", "log": log}
    return {"name": key, "words": [word if word is not None else "–" for word in words]}


def _number(word: str | None) -> float | None:
    try:
        return _finite(float(word)) if word is not None else None
    except ValueError:
        return None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
