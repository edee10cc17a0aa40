"""The page of a sweep."""

from __future__ import annotations

from datetime import UTC, datetime

from tinyflux_pl.report import arms as grouping
from tinyflux_pl.report import page
from tinyflux_pl.report.markup import Markup, tag
from tinyflux_pl.report.page import Section
from tinyflux_pl.report.sections import (
    commands,
    sweep_curves,
    sweep_differences,
    sweep_headline,
    sweep_pictures,
)
from tinyflux_pl.report.sweep_files import SweepFiles


def html(sweep: SweepFiles, baseline: str | None = None) -> str:
    """The document; `baseline` names the arm that others are compared with, by default the first.

    ConfigError if no arm or several fit the name.
    """
    arms = grouping.arms_of(sweep)
    first = grouping.baseline_index(arms, baseline)
    bands = "Means over seeds; bands: bootstrap 95 % intervals, none for a single seed."
    sections = [
        Section("jobs", "Jobs", sweep_headline.table(sweep, arms)),
        Section("curves", "Curves", sweep_curves.section(arms), bands),
        Section("differences", "Paired differences", sweep_differences.section(arms, first)),
        Section(
            "parallel",
            "Parallel coordinates",
            sweep_curves.parallel(sweep, arms),
            "A line is a job, its colour the arm. Hover or tab to a line to single it out.",
        ),
        Section(
            "pictures",
            "Pictures side by side",
            sweep_pictures.section(sweep, arms),
            "Equal prompts, equal steps, equal noise.",
        ),
        Section("commands", "Commands", _commands(sweep)),
    ]
    header = sweep_headline.header(sweep, arms, sweep.notes)
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    closing = f"Written {written} from {sweep.folder} by tinyflux_pl. This page loads nothing."
    return page.html(f"{sweep.name}: sweep report", header, sections, closing)


def _commands(sweep: SweepFiles) -> Markup:
    """The commands that write the jobs' own pages, and this one again."""
    base = ["python", "-m", "tinyflux_pl.report"]
    rows = [commands.command("Write this page again", commands.words(*base, str(sweep.folder)))]
    if sweep.jobs:
        one = commands.words(*base, str(sweep.jobs[0].run.folder))
        rows.append(commands.command("The page of one job", one))
    return tag("div", rows, class_="card")
