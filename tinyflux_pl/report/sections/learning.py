"""Curves of a run: loss, rates and norms; the loss at each t; speed; whatever else was logged."""

from __future__ import annotations

from collections.abc import Mapping

from tinyflux_pl.report import chart, panels
from tinyflux_pl.report.curve import Curve
from tinyflux_pl.report.markup import Markup
from tinyflux_pl.report.page import grid
from tinyflux_pl.report.pictures import evenly

Panels = Mapping[str, Mapping[str, Curve]]
PROFILES = 5  # validations whose loss over t is drawn
MOST_UNLISTED = 60


def section(by_panel: Panels, name: str) -> Markup:
    """The charts of a section; a chart whose values never change from 0 is left out."""
    present = [p for p in panels.of_section(name) if p.key in by_panel]
    drawn = [p for p in present if not (p.key == "skipped" and _never_above_zero(by_panel[p.key]))]
    return grid(*(chart.of_panel(p, by_panel[p.key], wide=p.key == "loss") for p in drawn))


def times(by_panel: Panels) -> Markup:
    """Loss at each t over steps, and over t at a few steps."""
    at_times = by_panel.get("times", {})
    return grid(
        *(
            chart.of_panel(p, by_panel[p.key])
            for p in panels.of_section("times")
            if p.key in by_panel
        ),
        _profile(at_times),
    )


def unlisted(curves: Mapping[str, Curve]) -> Markup:
    """A small chart for each metric that is not catalogued."""
    names = sorted(curves)[:MOST_UNLISTED]
    return grid(
        *(
            chart.figure(f"other-{rank}", name, [{"name": name, **curves[name].plain()}], log="off")
            for rank, name in enumerate(names)
        )
    )


def _profile(at_times: Mapping[str, Curve]) -> Markup:
    times = sorted(at_times, key=float)
    if len(times) < 2:
        return Markup()
    steps = sorted({float(step) for curve in at_times.values() for step in curve.steps})
    chosen = evenly(steps, PROFILES)
    series = []
    for rank, step in enumerate(chosen):
        points = [(float(t), value) for t in times if (value := at_times[t].at(step)) is not None]
        shade = rank / max(1, len(chosen) - 1)
        series.append(
            {
                "name": f"step {step:,.0f}",
                "ramp": shade,
                "x": [t for t, _ in points],
                "y": [value for _, value in points],
            }
        )
    return chart.figure(
        "profile",
        "Validation loss over t",
        series,
        "MSE",
        log="off",
        x_label="t: 0 noise, 1 data",
    )


def _never_above_zero(curves: Mapping[str, Curve]) -> bool:
    return all(not curve.values.any() for curve in curves.values())
