"""What a run on a person's own pictures can be expected to learn, said before it starts."""

from __future__ import annotations

from typing import Any

from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.data.training_captions import PARSERS

EMBEDDED = "tinyflux_pl.experts.teacher.embedded"


def of(config: dict[str, Any], sources: list[Source], parameters: int, size: tuple[int, int]) -> list[str]:
    """Lines on the model's size beside the number and the size of the pictures; none for the project's own data."""
    records = [source.train.records for source in sources]
    count = sum(len(each) for each in records if each.reads_files)
    if not count:
        return []
    height, width = size
    seen = config["steps"] * config["hardware"]["batch_size"] / sum(len(each) for each in records)
    return [
        f"{count:,} pictures of your own to learn from, {parameters:,} parameters: {parameters / count:,.0f} a picture",
        f"pictures of {width} x {height} pixels are drawn, with no more detail than that (data.image_size)",
        f"every picture is seen {seen:,.1f} times in {config['steps']:,} steps (steps)",
        "a network that begins from nothing learns these pictures and the words of their captions, no others: "
        "with few pictures it repeats them. Previews show each beside a picture of the data with the same caption",
    ]


def of_teachers(config: dict[str, Any]) -> list[str]:
    """A line where teachers that come with the project are shown pictures of a kind they have never seen."""
    teachers = {name: config["teacher"].get(name) or {} for name in config["experts"]}
    embedded = [name for name, node in teachers.items() if node.get("_target_") == EMBEDDED and not node["folder"]]
    shown = {name: node for name, node in config["data"]["sources"].items() if node.get("experts") != []}
    foreign = [name for name, node in shown.items() if not _drawn_by_rule(node["train"])]
    if not embedded or not foreign:
        return []
    return [
        f"the embedded teachers ({', '.join(embedded)}) learned from {', '.join(PARSERS)} alone and have never seen "
        f"such pictures as data {', '.join(foreign)} has: experts=none, or teachers that know them (teacher=sd15_flow)"
    ]


def _drawn_by_rule(node: dict[str, Any]) -> bool:
    """True for records that lie in the package of a task with a grammar."""
    packages = {grammar.rpartition(".")[0] for grammar in PARSERS.values()}
    return node["_target_"].rsplit(".", 2)[0] in packages
