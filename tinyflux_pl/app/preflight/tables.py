"""The tables of a preflight: the data, the memory, the budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyflux_pl.app import tables
from tinyflux_pl.app.preflight.budget import Budget
from tinyflux_pl.app.preflight.dataset_survey import Survey
from tinyflux_pl.app.preflight.disk_needs import listed
from tinyflux_pl.core.printable import printable
from tinyflux_pl.data.records.finding import Finding
from tinyflux_pl.engine.memory_plan import size

FOUND = {
    "unreadable": "unreadable",
    "missing_captions": "no caption",
    "duplicates": "same picture twice",
    "contradictions": "same picture, other caption",
    "tiny": "enlarged to fit",
    "empty_masks": "mask without foreground",
    "cut_captions": "caption cut short",
}
NAMED, BUCKETS = 5, 12  # names in a row of findings, rows of sizes


def dataset(surveys: Sequence[Survey], fit_modes: dict[str, str], findings: dict[str, Sequence[Finding]]) -> None:
    """For each split what is wrong, by name, and the sizes its pictures have before they are fitted.

    `findings` are, by source, files that are not used.
    """
    rows = []
    for source, unused in findings.items():
        rows += [(source, "files that are not used, or not as may be meant")] if unused else []
        rows += [(f"  {finding.kind}", printable(finding.line())) for finding in unused]
    for survey in surveys:
        note = ", as found when their cache was made" if survey.kept else ""
        sound = "nothing wrong" if survey.audit.sound else f"{survey.audit.readable:,} readable"
        rows.append((survey.name, f"{survey.audit.total:,} records, {sound}{note}"))
        for kind, name in FOUND.items():
            found = [" = ".join(f) if isinstance(f, list) else f for f in getattr(survey.audit, kind)]
            more = f", and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
            if found:
                rows.append((f"  {name}", f"{len(found):,}: {printable(', '.join(found[:NAMED]))}{more}"))
        how = "cropped" if fit_modes[survey.source] == "crop" else "white"
        lines = survey.sizes.lines()
        for ratio, side, count, lost, enlarged in lines[:BUCKETS]:
            grown = f", {enlarged:,} enlarged" if enlarged else ""
            rows.append((f"  {ratio}", f"{count:,} of {side} px, {lost:.0%} {how}{grown}"))
        if more := lines[BUCKETS:]:
            rows.append(("  other sizes", f"{sum(line[2] for line in more):,} in {len(more)} more ranges"))
    tables.show("the data", rows)


def memory(dry_run: Any, free: int, device: str) -> None:
    """Each stage: predicted and measured; first what all of them hold."""
    stages = dry_run.plan.stages
    common = {k: n for k, n in stages[0].rows.items() if all(k in s.rows for s in stages if s.host == stages[0].host)}
    rows = [("all along", f"{size(sum(common.values()))}: {_listed(common)}")]
    for stage in stages:
        found = dry_run.measured[stage.name]
        measured = "no counter here to measure it" if found is None else f"{size(found)} measured"
        where = " on the host" if stage.host and device != "cpu" else ""
        own = _listed({what: count for what, count in stage.rows.items() if what not in common})
        rows.append((stage.name, f"{size(stage.total)} predicted{where}, {measured}; {own}"))
    tables.show(f"memory ({device}: {size(free)} free)", rows)


def budget(found: Budget, notes: Sequence[str]) -> None:
    """The closing table."""
    sizes, left = found.sizes, found.steps - found.start
    ranks = f"{sizes.ranks} rank{'s' if sizes.ranks > 1 else ''}"
    spent = ", ".join(f"{what} {_duration(seconds)}" for what, seconds in found.seconds.items())
    rows = [
        ("samples", f"{found.samples:,} to train on, {found.validation_samples:,} to validate with"),
        ("steps", f"{left:,} of {found.steps:,}; {found.epochs:,.1f} epochs in all"),
        ("batch", f"{found.batch_size:,} = {sizes.on_rank} samples x {sizes.accumulation} accumulated x {ranks}"),
        ("rate", f"{found.images_per_second:,.1f} images a second"),
        ("time", f"{_duration(3600 * found.hours)}: {spent}"),
        ("memory", f"{size(found.memory.total)} at most, in the stage {found.memory.name}"),
        ("disk", f"to be written: {listed(found.writes)}; caches that are there: {size(found.caches_there)}"),
        *(("note", note) for note in notes),
    ]
    tables.show("the budget", rows)


def _listed(rows: dict[str, int]) -> str:
    return ", ".join(f"{what} {size(count)}" for what, count in rows.items())


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
