"""A line chart: its element, and the data from which the page's script draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinyflux_pl.report.curve import Curve
from tinyflux_pl.report.markup import Markup, data_block, join, tag
from tinyflux_pl.report.panels import Panel

STEP_AXIS = "optimizer step"


def figure(
    key: str,
    title: str,
    series: Sequence[Mapping[str, Any]],
    axis: str = "",
    unit: str = "plain",
    log: str | None = None,
    zero: bool = False,
    most: float | None = None,
    x_label: str = STEP_AXIS,
    wide: bool = False,
) -> Markup:
    """A chart of `series`: plain data with name, x, y and, where there are any, gaps, low, high."""
    spec = {
        "title": title,
        "series": list(series),
        "unit": unit,
        "log": log,
        "zero": zero,
        "most": most,
        "xLabel": x_label,
        "xUnit": "plain",
        "whole": x_label == STEP_AXIS,
    }
    reference = f"chart-{key}"
    caption = tag("figcaption", tag("div", title, tag("span", axis)), tag("div", class_="tools"))
    parts = [caption, tag("div", class_="legend"), tag("div", class_="plot")]
    element = tag("figure", *parts, class_="chart wide" if wide else "chart", data_chart=reference)
    return join([element, data_block(reference, spec)])


def of_panel(panel: Panel, curves: Mapping[str, Curve], wide: bool = False) -> Markup:
    """The chart of a panel with a line for each curve."""
    names = list(curves)
    ramp = len(names) > 1 and all(_is_number(name) for name in names)
    ordered = sorted(names, key=float) if ramp else names
    series = []
    for rank, name in enumerate(ordered):
        shade = {"ramp": rank / (len(ordered) - 1)} if ramp else {}
        label = f"t = {name}" if ramp and panel.section == "times" else name
        series.append({"name": label, **curves[name].plain(), **shade})
    return figure(
        panel.key,
        panel.title,
        series,
        panel.axis,
        panel.unit,
        panel.log,
        panel.zero,
        panel.most,
        wide=wide,
    )


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
