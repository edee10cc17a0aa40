"""The page of a run."""

from __future__ import annotations

from datetime import UTC, datetime

from tinyflux_pl.report import importance, page, panels, pictures
from tinyflux_pl.report.markup import Markup, tag
from tinyflux_pl.report.page import Section
from tinyflux_pl.report.run_files import FINISHED, RunFiles
from tinyflux_pl.report.sections import (
    accuracy,
    commands,
    configuration,
    experts,
    headline,
    learning,
    provenance,
    samples,
)


def html(run: RunFiles, attention: bool = True) -> str:
    """The document. `attention`: run the student once to compare its attention with Sol's."""
    by_panel, rest = panels.group_by_panel(run.curves)
    previews = pictures.previews(run.sheets)
    maps = _importance(run) if attention else Markup()
    sections = [
        Section(
            "samples",
            "Samples over time",
            samples.section(previews),
            "The same prompts and the same seeds at every step, from the averaged weights.",
        ),
        Section(
            "curves",
            "Curves",
            learning.section(by_panel, "curves"),
            "Validation measures the averaged weights on a fixed grid of times and noise.",
        ),
        Section(
            "times",
            "Loss per t-bucket",
            learning.times(by_panel),
            "From noise (t = 0) to data (t = 1).",
        ),
        Section(
            "accuracy",
            "Accuracy by attribute",
            accuracy.section(run, by_panel),
            "A verifier reads each picture back and compares it with its prompt.",
        ),
        Section("experts", "Experts", experts.section(run, by_panel)),
        Section(
            "attention",
            "Attention importance",
            maps,
            "Attention of the teacher Sol next to the map predicted by the student's head.",
        ),
        Section("speed", "Throughput and memory", learning.section(by_panel, "speed")),
        Section("others", "Other metrics", learning.unlisted(rest)),
        Section("log", "End of the log", _log(run)),
        Section("commands", "Commands", commands.section(run)),
        Section("configuration", "Configuration", configuration.section(run)),
        Section("provenance", "Provenance", provenance.section(run)),
    ]
    header = headline.header(run, previews)  # last: sections add to the notes
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    closing = f"Written {written} from {run.folder} by tinyflux_pl. This page loads nothing."
    return page.html(f"{run.name}: run report", header, sections, closing)


def _importance(run: RunFiles) -> Markup:
    try:
        return experts.importance(importance.compute(run))
    except Exception as error:  # a cache or checkpoint of any age: the rest of the page is worth it
        reason = str(error).splitlines() or [type(error).__name__]
        run.notes.append(f"attention importance: {reason[0]}")
        return Markup()


def _log(run: RunFiles) -> Markup:
    """The last lines of the log of a run that did not reach its end."""
    if run.state == FINISHED or not run.log:
        return Markup()
    return tag("div", tag("pre", run.log, tabindex="0"), class_="card")
