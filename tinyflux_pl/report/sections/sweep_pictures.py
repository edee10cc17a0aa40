"""Pictures of the jobs side by side: equal captions, equal steps, a seed at a time."""

from __future__ import annotations

from collections.abc import Sequence

from tinyflux_pl.report import pictures
from tinyflux_pl.report.arms import Arm
from tinyflux_pl.report.markup import Markup, tag
from tinyflux_pl.report.pictures import Previews
from tinyflux_pl.report.sections import samples
from tinyflux_pl.report.sweep_files import Job, SweepFiles

MAX_COLUMNS, MAX_ROWS, MAX_GROUPS = 12, 8, 8

Column = tuple[Job, Previews]


def section(sweep: SweepFiles, arms: Sequence[Arm]) -> Markup:
    """A block a seed, since the prompts of previews follow the seed; one of them is visible."""
    labels = {job.number: arm.label for arm in arms for job in arm.jobs}
    groups: dict[int | None, list[Job]] = {}
    for job in sweep.jobs:
        if job.run.sheets:
            groups.setdefault(job.seed, []).append(job)
    jobs = {seed: group[:MAX_COLUMNS] for seed, group in list(groups.items())[:MAX_GROUPS]}
    count = sum(len(group) for group in jobs.values())
    blocks = []
    for seed, group in jobs.items():
        columns = [(j, pictures.previews(j.run.sheets, pictures.BUDGET // count)) for j in group]
        block = _block(columns, labels)
        if block:
            blocks.append((seed, block))
    if not blocks:
        return Markup()
    options = [tag("option", f"seed {seed}", value=rank) for rank, (seed, _) in enumerate(blocks)]
    select = tag("select", options, data_shows="seed", aria_label="seed")
    label = tag("div", tag("label", "pictures of ", select), class_="controls")
    elements = [
        tag("div", block, data_shown_by="seed", data_choice=rank, hidden=rank > 0)
        for rank, (_, block) in enumerate(blocks)
    ]
    return tag("div", label if len(blocks) > 1 else None, elements, class_="card")


def _block(columns: Sequence[Column], labels: dict[int, str]) -> Markup:
    """Rows of captions, columns of jobs, at the steps and captions that all of them have."""
    present = [column for column in columns if column[1].shots]
    if not present:
        return Markup()
    steps = sorted(set.intersection(*(set(p.shots) for _, p in present)))
    captions = [
        caption
        for caption in present[0][1].captions
        if all(caption in p.captions for _, p in present)
    ]
    if not steps or not captions:
        return tag("p", "These jobs have no step and caption in common.", class_="note")
    head = [tag("th", "prompt"), *(tag("th", _heading(j, labels)) for j, _ in present)]
    rows = [_row(caption, present, steps) for caption in captions[:MAX_ROWS]]
    table = tag("table", tag("thead", tag("tr", head)), tag("tbody", rows), class_="side")
    bar = samples.controls(steps, modes=False)
    return tag("div", bar, tag("div", table, class_="scroll"), class_="pictures", data_view="one")


def _heading(job: Job, labels: dict[int, str]) -> Markup:
    return tag("span", labels[job.number], tag("small", f" job {job.number}", class_="side-job"))


def _row(caption: str, columns: Sequence[Column], steps: list[int]) -> Markup:
    cells = []
    for job, previews in columns:
        shots = [
            samples.shot(
                previews.shots[step].get(caption),
                f"{caption or 'sheet'}, job {job.number}, step {step}",
                step,
                step == steps[-1],
            )
            for step in steps
        ]
        cells.append(tag("td", shots))
    return tag("tr", tag("th", caption or "sheet of previews", scope="row"), cells)
