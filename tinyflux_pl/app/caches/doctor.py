"""Every cache and every checkpoint below a folder, hashed again: what is whole, what is not, and what mends it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinyflux_pl.app.caches.replacement import NEW, OLD
from tinyflux_pl.app.cli import process_settings
from tinyflux_pl.cache import verify as store_health
from tinyflux_pl.cache.staleness import repair_command
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import CorruptCheckpoint, DataError
from tinyflux_pl.core.progress import track

CACHE, CHECKPOINT, CLOSED = "cache", "checkpoint", "folder"
BESIDE = 80  # columns that the doctor's table needs beside a path
SHOWN = 10  # damaged files of one place that the table names


@dataclass
class Place:
    """One cache or checkpoint directory, or a folder that may hold some, and what was found wrong with it."""

    kind: str
    path: Path
    files: list[Path]
    faults: list[str] = field(default_factory=list)
    unmade: int = 0
    cure: str = ""

    @property
    def parts(self) -> list[Path]:
        """The files that are judged one by one; a shard's record is judged with it."""
        return [file for file in self.files if not (file.name.startswith("shard_") and file.suffix == ".json")]

    @property
    def whole(self) -> bool:
        """Whether it is all there, as it was written."""
        return not self.faults and not self.unmade


def run(config: dict[str, Any]) -> int:
    """Verify, print a table, and with `repair` take damaged shards out; 1 if anything is left that is not whole.

    What `repair` has taken out is made anew by the next run, so it does not count.
    """
    places = found(_roots(config))
    total = sum(len(place.parts) for place in places)
    for _ in track(_examined(places), "doctor", total, "file") if places else ():
        pass
    for place in places:
        place.cure = place.cure or _cure(place)
    repaired = [place for place in places if config["repair"] and place.kind == CACHE and place.faults]
    for place in repaired:
        store_health.repair(place.path)
        place.cure = "taken out; run your extraction or training again: it writes just these"
        if others := store_health.foreign(place.path):
            place.cure = f"{_moved(place.path, others)}; all else is taken out, and the next run writes it"
    _print(places)
    for line in process_settings.apply():
        print(line)
    left = [place for place in places if place not in repaired or store_health.foreign(place.path)]
    return int(any(not place.whole for place in left))


def found(roots: list[Path]) -> list[Place]:
    """The caches and checkpoint directories below the folders, each once, and folders that cannot be read.

    Names with a leading dot are left out, and links to folders are not followed.
    """
    places: dict[Path, Place] = {}

    def closed(error: OSError) -> None:
        path = Path(error.filename)
        cure = "make it readable, and look again"
        places[path.resolve()] = Place(CLOSED, path, [], [f"cannot be read: {error.strerror}"], cure=cure)

    for root in roots:
        for folder, inside, _ in os.walk(root, onerror=closed):
            path = Path(folder)
            inside[:] = sorted(name for name in inside if not name.startswith("."))
            kind = CACHE if store_health.is_store(path) else CHECKPOINT if _is_checkpoint(path) else ""
            if kind:
                inside.clear()
                files = [file for file in sorted(path.rglob("[!.]*")) if file.is_file()]
                places.setdefault(path.resolve(), Place(kind, path, files))
    return list(places.values())


def _roots(config: dict[str, Any]) -> list[Path]:
    if str(config["doctor"]).lower() != "true":
        folder = Path(str(config["doctor"])).expanduser()
        if not folder.is_dir():
            cure = "name a folder that holds caches or checkpoints, or say doctor=true"
            raise DataError("no such folder", where=str(folder), cure=cure)
        return [folder]
    caches = [Path(node["cache"]) for node in config["data"]["sources"].values()]
    places = [Path(config["paths"][name]) for name in ("root", "cache", "outputs")]  # the last two may be links
    return [path for path in (*caches, *places) if path.is_dir()]


def _is_checkpoint(path: Path) -> bool:
    """Whether a folder is, or before it was damaged was, a checkpoint of ours; a model's release is none."""
    held = {name for name in (directory.MANIFEST, directory.WEIGHTS, directory.STATE) if (path / name).is_file()}
    return len(held) > 1 or (bool(held) and path.parent.name == "checkpoints")


def _examined(places: list[Place]) -> Iterator[Place]:
    """Each place, as often as it has parts that were hashed."""
    for place in places:
        if place.kind == CLOSED:
            continue
        if place.kind == CACHE:
            yield from _examined_cache(place)
            continue
        try:
            directory.read(place.path)
        except CorruptCheckpoint as error:
            place.faults.append(error.what)
            place.cure = error.cure
        yield from [place] * len(place.parts)


def _examined_cache(place: Place) -> Iterator[Place]:
    for file, fault in store_health.examine(place.path):
        if fault == store_health.NOT_MADE:
            place.unmade += 1
        elif fault:
            place.faults.append(f"{file.relative_to(place.path)}: {fault}")
        yield place


def _cure(place: Place) -> str:
    if place.path.name.endswith((NEW, OLD)):
        return "left by a rebuild that was stopped: give its command again (rebuild=true), or remove this folder"
    if place.kind == CACHE and (others := store_health.foreign(place.path)):
        return f"{_moved(place.path, others)}; then look again"
    if place.faults:
        return repair_command(place.path)
    return "finish it: run your extraction or training again" if place.unmade else ""


def _moved(root: Path, others: list[Path]) -> str:
    names = ", ".join(str(path.relative_to(root)) for path in others)
    return f"{names}: another program's, and never removed: move {'it' if len(others) == 1 else 'them'} elsewhere"


def _state(place: Place) -> str:
    more = [f"and {len(place.faults) - SHOWN:,} more"] if len(place.faults) > SHOWN else []
    unmade = [f"unfinished: {place.unmade:,} shard{'s' * (place.unmade != 1)} to be made"] if place.unmade else []
    return "\n".join([*place.faults[:SHOWN], *more, *unmade]) or "whole"


def _print(places: list[Place]) -> None:
    count = f"{len(places)} place{'s' * (len(places) != 1)}, {sum(not place.whole for place in places)} not whole"
    table = Table(title=count, title_justify="left")
    for name, right in (("kind", False), ("place", False), ("files", True), ("MiB", True), ("state", False)):
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=name == "place")
    for place in places:
        size = sum(file.stat().st_size for file in place.files if file.exists()) / 2**20
        state = Text(_state(place), style="" if place.whole else "red")
        table.add_row(place.kind, Text(str(place.path)), f"{len(place.files):,}", f"{size:,.1f}", state)
    console = Console(soft_wrap=True)
    longest = max((len(str(place.path)) for place in places), default=0)
    console.width = max(console.width, longest + BESIDE)  # a path stays whole, wherever a terminal breaks the line
    console.print(table)
    for place in places:
        if place.cure:
            Console(soft_wrap=True).print(f"{place.path}: {place.cure}", highlight=False, markup=False)
