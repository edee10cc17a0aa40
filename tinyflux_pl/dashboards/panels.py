"""Panels over catalogued names: a pattern becomes a regular expression, a name itself.

wandb-workspaces is imported inside functions: it is an optional extra.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tinyflux_pl.core.metric_names import MetricName

STEP = "trainer/global_step"  # the run's own step, as Lightning's logger names it


def lines(title: str, *entries: MetricName, **options: Any) -> Any:
    """Curves over steps of one pattern, or of one name or several."""
    import wandb_workspaces.reports.v2 as reports

    names = [entry.pattern for entry in entries]
    if any("{" in name for name in names):
        (pattern,) = entries
        return reports.LinePlot(title=title, x=STEP, metric_regex=regex(pattern), **options)
    return reports.LinePlot(title=title, x=STEP, y=names, **options)


def bands(title: str, *entries: MetricName) -> Any:
    """Mean and standard error of the curves of each group of runs."""
    return lines(
        title, *entries, groupby="Group", groupby_aggfunc="mean", groupby_rangefunc="stderr"
    )


def bars(title: str, names: Sequence[str], **options: Any) -> Any:
    """The newest value of each run."""
    import wandb_workspaces.reports.v2 as reports

    return reports.BarPlot(title=title, metrics=list(names), **options)


def media(title: str, *entries: MetricName) -> Any:
    """Pictures or tables over steps."""
    import wandb_workspaces.reports.v2 as reports

    return reports.MediaBrowser(title=title, media_keys=[entry.pattern for entry in entries])


def parallel_coordinates(title: str, config: Sequence[str], results: Sequence[str]) -> Any:
    """Keys of the configuration beside results."""
    import wandb_workspaces.reports.v2 as reports

    metrics = [reports.Config(key) for key in config]
    metrics += [reports.SummaryMetric(name) for name in results]
    columns = [reports.ParallelCoordinatesPlotColumn(metric) for metric in metrics]
    return reports.ParallelCoordinatesPlot(title=title, columns=columns)


def scatter(title: str, x: str, y: str) -> Any:
    """One result of each run against another."""
    import wandb_workspaces.reports.v2 as reports

    metrics = {"x": reports.SummaryMetric(x), "y": reports.SummaryMetric(y)}
    return reports.ScatterPlot(title=title, **metrics)


def regex(entry: MetricName) -> str:
    """The regular expression of a pattern's names."""
    return "[^/]+".join(map(re.escape, re.split(r"\{\w+\}", entry.pattern)))
