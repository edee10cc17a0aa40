"""The tables of a preflight: data, memory, budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tinyflux_pl.app.preflight.budget import Budget
from tinyflux_pl.app.preflight.dataset_survey import Survey
from tinyflux_pl.app.preflight.disk_needs import summary
from tinyflux_pl.app.preflight.extraction_plan import GroupPlan
from tinyflux_pl.core.printable import printable
from tinyflux_pl.data.records.finding import Finding
from tinyflux_pl.data.records.record_source import RecordSource
from tinyflux_pl.engine.memory_plan import size

LABELS = {  # field of an Audit -> its label
    "unreadable": "unreadable",
    "missing_captions": "no caption",
    "duplicates": "same picture twice",
    "contradictions": "same picture, other caption",
    "tiny": "enlarged to fit",
    "empty_masks": "mask without foreground",
    "cut_captions": "caption cut short",
}
MAX_NAMES = 5  # in a row
MAX_SIZES = 12  # rows

Rows = list[tuple[str, str]]


class Table(NamedTuple):
    """Rows of a label and a text, with a title for the console and a name for the loggers."""

    name: str
    heading: str
    rows: Rows


def dataset(
    surveys: Sequence[Survey],
    fit_modes: dict[str, str],
    findings: dict[str, Sequence[Finding]],
) -> Table:
    """Problems by name, and the sizes of the pictures before they are fitted, for each split.

    `findings` are files that are not used, by source.
    """
    rows: Rows = []
    for source, unused in findings.items():
        if unused:
            rows.append((source, "files that are not used, or perhaps not as intended"))
        rows += [(f"  {finding.kind}", printable(finding.line())) for finding in unused]
    for survey in surveys:
        rows += _problem_rows(survey)
        rows += _size_rows(survey, "cropped" if fit_modes[survey.source] == "crop" else "white")
    return Table("data", "the data", rows)


def frames(records: dict[str, RecordSource], batch: int) -> Table | None:
    """Pictures of each frame by source/split, and batches an epoch; None for a single frame."""
    rows: Rows = []
    for name, each in records.items():
        segments = each.segments
        if any(frame is None for frame, _ in segments):
            continue
        repeats, _ = each.draw_rates() or ([1] * len(each), [])
        count, start = len(each), 0
        rows.append((name, f"{count:,} pictures in {len(segments)} frames, none left out"))
        for frame, count in segments:
            drawn = sum(repeats[start : start + count])
            start += count
            again = f", {drawn:,} draws an epoch" if drawn != count else ""
            text = f"{count:,} pictures{again}, {drawn / batch:,.1f} batches of {batch} an epoch"
            if drawn < batch and name.endswith("/train"):
                text += "; a batch repeats pictures: data.buckets.least joins frames"
            height, width = frame
            rows.append((f"  {width} x {height}", text))
    return Table("frames", "frames of the pictures (width x height)", rows) if rows else None


def _problem_rows(survey: Survey) -> Rows:
    audit = survey.audit
    note = ", as surveyed when the cache was made" if survey.stored else ""
    state = "nothing wrong" if audit.sound else f"{audit.readable:,} readable"
    total = f"{audit.total:,} record{'s' * (audit.total != 1)}"
    rows = [(survey.name, f"{total}, {state}{note}")]
    if audit.texts > audit.readable:
        rows.append(("  captions", f"{audit.texts:,} texts, one a picture at each step"))
    if audit.masked:
        rows.append(("  masks", f"{audit.masked:,}"))
    for field, label in LABELS.items():
        names = [" = ".join(f) if isinstance(f, list) else f for f in getattr(audit, field)]
        if names:
            more = f", and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
            text = f"{len(names):,}: {printable(', '.join(names[:MAX_NAMES]))}{more}"
            rows.append((f"  {label}", text))
    return rows


def _size_rows(survey: Survey, lost_as: str) -> Rows:
    lines = survey.sizes.lines()
    rows = []
    for ratio, side, count, lost, enlarged in lines[:MAX_SIZES]:
        grown = f", {enlarged:,} enlarged" if enlarged else ""
        rows.append((f"  {ratio}", f"{count:,} of {side} px, {lost:.0%} {lost_as}{grown}"))
    if more := lines[MAX_SIZES:]:
        text = f"{sum(line[2] for line in more):,} in {len(more)} more ranges"
        rows.append(("  other sizes", text))
    return rows


def extraction(plans: Sequence[GroupPlan]) -> Table:
    """Rows, bytes and time of each group that the caches lack, and of all of them."""
    rows: Rows = []
    for plan in plans:
        need = plan.need
        text = f"{need.rows:,} of {need.total:,}, {size(plan.bytes)}, {_duration(plan.seconds)}"
        rows.append((f"{need.source}/{need.split}: {need.group}", text))
    total = sum(plan.bytes for plan in plans), sum(plan.seconds for plan in plans)
    rows.append(("all", f"{size(total[0])}, about {_duration(total[1])}"))
    return Table("extraction", "to be cached (samples, size, time)", rows)


def memory(dry_run: Any, free: int, device: str) -> Table:
    """The memory common to all stages, then each stage's, predicted and measured."""
    stages = dry_run.plan.stages
    alike = [stage for stage in stages if stage.host == stages[0].host]
    common = {
        name: count
        for name, count in stages[0].rows.items()
        if all(name in stage.rows for stage in alike)
    }
    rows = [("all along", f"{size(sum(common.values()))}: {_join_sizes(common)}")]
    for stage in stages:
        count = dry_run.measured[stage.name]
        measured = "not measurable here" if count is None else f"{size(count)} measured"
        where = " on the host" if stage.host and device != "cpu" else ""
        specific = {name: count for name, count in stage.rows.items() if name not in common}
        predicted = f"{size(stage.total)} predicted{where}"
        rows.append((stage.name, f"{predicted}, {measured}; {_join_sizes(specific)}"))
    return Table("memory", f"memory ({device}: {size(free)} free)", rows)


def budget(budget: Budget, notes: Sequence[str]) -> Table:
    """The closing table."""
    sizes, left = budget.sizes, budget.steps - budget.start
    stage, memory = budget.memory
    ranks = f"{sizes.ranks} rank{'s' if sizes.ranks > 1 else ''}"
    spent = ", ".join(f"{kind} {_duration(seconds)}" for kind, seconds in budget.seconds.items())
    samples = f"{budget.samples:,} to train on, {budget.validation_samples:,} to validate with"
    batch = f"{sizes.on_rank} samples x {sizes.accumulation} accumulated x {ranks}"
    disk = f"to be written: {summary(budget.writes)}; existing caches: {size(budget.cache_bytes)}"
    rows = [
        ("samples", samples),
        ("steps", f"{left:,} of {budget.steps:,}; {budget.epochs:,.1f} epochs in all"),
        ("batch", f"{budget.batch_size:,} = {batch}"),
        ("rate", f"{budget.images_per_second:,.1f} images a second"),
        ("time", f"{_duration(3600 * budget.hours)}: {spent}"),
        ("memory", f"at most {size(memory)}, in the stage {stage}"),
        ("disk", disk),
        *(("note", note) for note in notes),
    ]
    return Table("budget", "the budget", rows)


def _join_sizes(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {size(count)}" for name, count in counts.items())


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
