"""Notes on the results that a run can be expected to reach, printed before it starts."""

from __future__ import annotations

from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.config.renamed_targets import current_target
from tinyflux_pl.config.schema import DataJob, Node, Train
from tinyflux_pl.data.training_captions import PARSERS

EMBEDDED = "tinyflux_pl.experts.teacher.embedded"


def schedule_notes(config: Train) -> list[str]:
    """A note on a warm-up that is longer than the run."""
    steps, warmup = config.steps, config.schedule.get("warmup_steps", 0)
    if warmup < steps:
        return []
    return [
        f"the warm-up of {warmup} steps is longer than the run of {steps}: the learning rate never "
        f"reaches optimizer.lr; use schedule.warmup_steps={max(1, steps // 10)}"
    ]


def picture_notes(
    config: Train,
    sources: list[Source],
    parameters: int,
    size: tuple[int, int],
) -> list[str]:
    """Notes on the number, size and repetitions of a user's own pictures; [] for other data."""
    records = [source.train.records for source in sources]
    count = sum(len(each) for each in records if each.reads_files)
    if not count:
        return []
    height, width = size
    drawn = config.steps * config.hardware.batch_size
    repetitions = drawn / sum(len(each) for each in records)
    from_scratch = config.init is None and not config.model.get("weights")
    notes = [
        f"pictures of your own to learn from: {count:,}; parameters that learn: {parameters:,}, "
        f"{parameters / count:,.0f} a picture",
        f"pictures of {width} x {height} pixels are drawn, with no more detail than that "
        "(data.image_size)",
        f"every picture is seen {repetitions:,.1f} times in {config.steps:,} steps (steps)",
    ]
    without = any(not each.has_pictures for each in records)
    if without:
        notes.append(
            "the data has latents and no pictures: previews stand beside none, and copies of one "
            "picture are not noticed"
        )
    if from_scratch:
        previews = ". Previews show each beside a picture of the data with the same caption"
        notes.append(
            "a network trained from scratch learns only these pictures and the words of their "
            f"captions: with few pictures it repeats them{'' if without else previews}"
        )
    return notes


def teacher_notes(config: DataJob) -> list[str]:
    """A note if embedded teachers extract from a kind of pictures that they were not trained on."""
    teachers = {name: config.teacher.node(name) for name in config.experts}
    embedded = [
        name
        for name, node in teachers.items()
        if node.get("_target_") == EMBEDDED and not node.get("folder")
    ]
    foreign = [
        name
        for name, source in config.data.sources.items()
        if source.experts != [] and not _is_drawn_by_rule(source.train)
    ]
    if not embedded or not foreign:
        return []
    return [
        f"the embedded teachers ({', '.join(embedded)}) were trained on {', '.join(PARSERS)} alone "
        f"and have never seen such pictures as data {', '.join(foreign)} has: "
        "experts=none, or teachers that know them (teacher=sd15_flow)"
    ]


def _is_drawn_by_rule(node: Node) -> bool:
    """True for a task with a grammar, under whichever name it is configured."""
    modules = {grammar.rpartition(".")[0] + ".records" for grammar in PARSERS.values()}
    return str(current_target(node["_target_"])).rpartition(".")[0] in modules


def map_notes(config: DataJob) -> list[str]:
    """A note that prompt accuracy is not measured where pictures follow maps."""
    if config.data.hint is None or not config.data.evaluation_prompts:
        return []
    return [
        "data.evaluation_prompts draws nothing: pictures follow maps, and prompts have none; "
        "previews show captions with their own maps"
    ]
