"""The top of a sweep's page, and its table of jobs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinyflux_pl.report import figures
from tinyflux_pl.report.arms import Arm
from tinyflux_pl.report.markup import Markup, tag
from tinyflux_pl.report.page import absent, bars
from tinyflux_pl.report.sweep_files import RESULTS, Job, SweepFiles
from tinyflux_pl.statistics.bootstrap import mean_interval

ACCURACY = "prompt_accuracy"
LOSS = "validation_loss"


def header(sweep: SweepFiles, arms: Sequence[Arm], notes: Sequence[str]) -> Markup:
    """Name, sentence, the arms' accuracy, tiles, and what is missing."""
    done = sum(job.state == "finished" for job in sweep.jobs)
    tone = "good" if done == len(sweep.jobs) else "warn"
    pill = tag("span", f"{done} of {len(sweep.jobs)} finished", class_=f"pill {tone}")
    top = [
        tag("p", "sweep report", class_="eyebrow"),
        tag("h1", sweep.name, " ", pill),
        tag("p", _sentence(sweep, arms), class_="lead"),
    ]
    return tag("header", top, _arm_bars(arms), _tiles(sweep), absent("Not in this report", notes))


def table(sweep: SweepFiles, arms: Sequence[Arm]) -> Markup:
    """A row a job; a header cell sorts by its column."""
    if not sweep.jobs:
        return Markup()
    colours = {job.number: rank for rank, arm in enumerate(arms) for job in arm.jobs}
    names = [name for name in RESULTS if any(j.result(name) is not None for j in sweep.jobs)]
    titles = ["job", "state", *sweep.swept, *(RESULTS[n][0] for n in names), "time"]
    numeric = {"job", "time", *(RESULTS[n][0] for n in names)}
    head = [
        tag(
            "th", tag("button", title, type="button"), class_="number" if title in numeric else None
        )
        for title in titles
    ]
    best = _best(sweep, LOSS)
    rows = [_row(job, sweep.swept, names, colours[job.number], job is best) for job in sweep.jobs]
    element = tag("table", tag("thead", tag("tr", head)), tag("tbody", rows), class_="sortable")
    note = tag("p", "Shaded: the lowest validation loss. Click a heading to sort.", class_="note")
    return tag("div", tag("div", element, class_="scroll"), note, class_="card")


def _row(job: Job, swept: Sequence[str], names: Sequence[str], colour: int, best: bool) -> Markup:
    key = tag("i", class_="key", style=f"--colour:var(--series-{colour % 8});margin-right:8px")
    cells = [
        tag("td", key, job.number, class_="number", data_value=job.number),
        tag("td", job.state, data_value=job.state),
    ]
    for name in swept:
        value = job.overrides.get(name, "")
        cells.append(tag("td", value or "–", data_value=value))
    for name in names:
        value = job.result(name)
        written = figures.fixed(value) if name == LOSS else figures.percent(value)
        cells.append(tag("td", written, class_="number", data_value="" if value is None else value))
    seconds = "" if job.seconds is None else job.seconds
    cells.append(tag("td", figures.duration(job.seconds), class_="number", data_value=seconds))
    return tag("tr", cells, class_="best" if best else None)


def _sentence(sweep: SweepFiles, arms: Sequence[Arm]) -> str:
    seeds = {job.seed for job in sweep.jobs}
    counts = ((len(sweep.jobs), "job"), (len(arms), "arm"), (len(seeds), "seed"))
    jobs, groups, repeats = (f"{n} {word}{'s' if n != 1 else ''}" for n, word in counts)
    swept = f"; swept: {', '.join(sweep.swept)}" if sweep.swept else ""
    return f"{jobs}: {groups}, {repeats}{swept}."


def _arm_bars(arms: Sequence[Arm]) -> Markup:
    """The mean accuracy of each arm, with its interval over seeds where there are two or more."""
    rows = []
    for rank, arm in enumerate(arms):
        values = np.array(list(arm.by_seed(ACCURACY).values()))
        if not len(values) or values.min() < 0 or values.max() > 1:
            continue
        interval = mean_interval(values) if len(values) > 1 else None
        ends = (interval.low, interval.high) if interval else None
        share = float(values.mean())
        rows.append((arm.label, share, figures.percent(share), rank % 8, ends))
    if not rows:
        return Markup()
    title = tag("h3", "Prompt accuracy of each arm, prompts as in training", style="margin-top:0")
    note = tag("p", "Mean over seeds; lines: bootstrap 95 % intervals over seeds.", class_="note")
    return tag("div", tag("div", title, bars(rows), note, class_="card arms"), class_="hero single")


def _tiles(sweep: SweepFiles) -> Markup:
    best, right = _best(sweep, LOSS), _best(sweep, ACCURACY)
    seconds = [job.seconds for job in sweep.jobs if job.seconds is not None]
    tiles = []
    if best is not None:
        tiles.append(
            ("lowest validation loss", figures.fixed(best.result(LOSS)), f"job {best.number}")
        )
    if right is not None:
        share = figures.percent(right.result(ACCURACY))
        tiles.append(("highest accuracy, seen", share, f"job {right.number}"))
    if seconds:
        tiles.append(("time of all jobs", figures.duration(sum(seconds)), "added up"))
    cells = [
        tag("div", tag("dt", label), tag("dd", value, tag("small", detail)))
        for label, value, detail in tiles
    ]
    return tag("dl", cells, class_="tiles") if cells else Markup()


def _best(sweep: SweepFiles, name: str) -> Job | None:
    """The job with the best finite result."""
    pairs = [(job.result(name), job) for job in sweep.jobs]
    finite = [(value, job) for value, job in pairs if value is not None and math.isfinite(value)]
    if not finite:
        return None
    sign = 1 if RESULTS[name][1] else -1
    return min(finite, key=lambda pair: sign * pair[0])[1]
