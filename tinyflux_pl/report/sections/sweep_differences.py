"""Paired differences of the arms from a baseline, and the steps to its final loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tinyflux_pl.report import arms as grouping
from tinyflux_pl.report import figures
from tinyflux_pl.report.arms import Arm
from tinyflux_pl.report.markup import Markup, join, tag
from tinyflux_pl.report.sweep_files import RESULTS
from tinyflux_pl.statistics.paired import PairedDifference

AREA = "area"
MEASURES = {**RESULTS, AREA: ("mean validation loss over the steps", True)}
MAX_BASELINES = 12
FEW = 5  # seeds below which an interval's coverage falls well short of its level


def section(arms: Sequence[Arm], baseline: int) -> Markup:
    """A table for each arm as the baseline, one of which is visible."""
    if len(arms) < 2:
        return Markup()
    choices = list(range(min(len(arms), MAX_BASELINES)))
    choices += [baseline] if baseline not in choices else []
    options = [tag("option", arms[i].label, value=i, selected=i == baseline) for i in choices]
    select = tag("select", options, data_shows="baseline", aria_label="baseline")
    blocks = [
        tag("div", _table(arms, i), data_shown_by="baseline", data_choice=i, hidden=i != baseline)
        for i in choices
    ]
    label = tag("label", "against the baseline ", select)
    return tag("div", tag("div", label, class_="controls"), blocks, _note(arms), class_="card")


def _table(arms: Sequence[Arm], baseline: int) -> Markup:
    head = [
        tag("th", "arm"),
        tag("th", "difference", class_="number"),
        tag("th", "95 % interval", class_="number"),
        tag("th", "seed by seed", style="width:38%"),
    ]
    rows: list[Markup] = []
    for name, (title, less) in MEASURES.items():
        values = [_values(arm, name) for arm in arms]
        if not values[baseline]:
            continue
        compared = {
            i: grouping.difference(values[baseline], values[i])
            for i in range(len(arms))
            if i != baseline and values[i]
        }
        if not compared:
            continue
        direction = "less is better" if less else "more is better"
        heading = tag("th", title, " ", tag("small", direction), colspan="4", scope="colgroup")
        rows.append(tag("tr", heading))
        reach = _reach(compared)
        percent = name not in ("validation_loss", AREA)
        rows += [_row(arms[i].label, d, i, less, percent, reach) for i, d in compared.items()]
    rows += _steps(arms, baseline)
    table = tag("table", tag("thead", tag("tr", head)), tag("tbody", rows), class_="forest")
    return tag("div", table, class_="scroll")


def _row(
    label: str,
    difference: PairedDifference | str,
    arm: int,
    less: bool,
    percent: bool,
    reach: float,
) -> Markup:
    name = tag(
        "td",
        tag("i", class_="key", style=f"--colour:var(--series-{arm % 8});margin-right:8px"),
        label,
    )
    if isinstance(difference, str):
        return tag("tr", name, tag("td", difference, colspan="3"))
    interval = difference.interval
    sure = interval.count >= FEW
    better = sure and (interval.high < 0 if less else interval.low > 0)
    worse = sure and (interval.low > 0 if less else interval.high < 0)
    tone = "better" if better else "worse" if worse else ""
    low, high = _written(interval.low, percent), _written(interval.high, percent)
    left = f"; unpaired: {', '.join(map(str, difference.unpaired))}" if difference.unpaired else ""
    return tag(
        "tr",
        name,
        tag("td", tag("b", _written(interval.mean, percent), class_=tone or None), class_="number"),
        tag("td", f"[{low}, {high}]", class_="number"),
        tag(
            "td", _forest(difference, arm, reach), tag("small", f"seeds {_seeds(difference)}{left}")
        ),
    )


def _forest(difference: PairedDifference, arm: int, reach: float) -> Markup:
    """The interval as a line, its mean as a dot, each seed as a ring, zero dashed."""

    def at(value: float) -> str:
        return f"{50 + 46 * value / reach:.2f}%"

    interval = difference.interval
    parts = [
        tag("line", x1="50%", x2="50%", y1="2", y2="24", class_="zero"),
        tag("line", x1=at(interval.low), x2=at(interval.high), y1="13", y2="13", class_="span"),
        *(
            tag("circle", cx=at(float(d)), cy="13", r="3.5", class_="each")
            for d in difference.differences
        ),
        tag("circle", cx=at(interval.mean), cy="13", r="4.5"),
    ]
    mean, low, high = map(figures.signed, (interval.mean, interval.low, interval.high))
    title = f"mean {mean}, from {low} to {high}"
    style = f"--colour:var(--series-{arm % 8})"
    return tag("svg", parts, role="img", aria_label=title, style=style)


def _steps(arms: Sequence[Arm], baseline: int) -> list[Markup]:
    """Median steps of each arm to the baseline's final validation loss."""
    finals = list(arms[baseline].by_seed("validation_loss").values())
    if not finals:
        return []
    threshold = float(np.mean(finals))
    heading = f"steps to a validation loss of {figures.short(threshold)}, the baseline's final mean"
    rows = [tag("tr", tag("th", heading, colspan="4", scope="colgroup"))]
    for rank, arm in enumerate(arms):
        median, count, total = grouping.reached(arm, threshold)
        if not total:
            continue
        written = "censored" if median is None else figures.short(round(median))
        key = tag("i", class_="key", style=f"--colour:var(--series-{rank % 8});margin-right:8px")
        rows.append(
            tag(
                "tr",
                tag("td", key, arm.label),
                tag("td", tag("b", written), class_="number"),
                tag("td", f"{count} of {total} runs reached it", colspan="2"),
            )
        )
    return rows


def _values(arm: Arm, name: str) -> dict[int, float]:
    return arm.areas() if name == AREA else arm.by_seed(name)


def _reach(compared: Mapping[int, PairedDifference | str]) -> float:
    """The largest absolute difference, which scales the axis of a measure."""
    sizes = [
        float(np.abs([d.interval.low, d.interval.high, *d.differences]).max())
        for d in compared.values()
        if isinstance(d, PairedDifference)
    ]
    return max(sizes, default=0.0) or 1.0


def _written(value: float, percent: bool) -> str:
    return f"{figures.signed(round(100 * value, 2))} pp" if percent else figures.signed(value)


def _seeds(difference: PairedDifference) -> str:
    return ", ".join(map(str, difference.seeds))


def _note(arms: Sequence[Arm]) -> Markup:
    text = (
        "Arm minus baseline, seed by seed; percentile bootstrap over the paired seeds. Green or "
        f"red, from {FEW} seeds on: the interval leaves out 0. pp: percentage points. "
    )
    seeds = min(len({job.seed for job in arm.jobs}) for arm in arms)
    if seeds < FEW:
        count = f"{seeds} seed{'s' if seeds != 1 else ''}"
        text += f"With {count} an interval is far too narrow: take it as a hint."
    return join([tag("p", text, class_="note")])
