"""Verify and repair the caches and checkpoints below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinyflux_pl.app.caches import leftovers
from tinyflux_pl.app.caches.replacement import NEW, OLD
from tinyflux_pl.app.caches.store_export import StoreExport
from tinyflux_pl.app.cli import process_settings
from tinyflux_pl.cache import verify
from tinyflux_pl.cache.staleness import repair_command
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.config.schema import Extract
from tinyflux_pl.core.errors import ConfigError, CorruptCheckpoint, DataError
from tinyflux_pl.core.progress import track

CACHE = "cache"
CHECKPOINT = "checkpoint"
UNREADABLE = "folder"
OTHER_COLUMNS = 80  # characters that the table needs next to a path
KEYS = ("repair", "export_pt", "prune")  # that an extraction does not read
MAX_FAULTS = 10  # damaged files of one artifact that the table names


@dataclass
class Artifact:
    """A cache store, a checkpoint, or an unreadable folder, with its faults."""

    kind: str
    path: Path
    files: list[Path]
    faults: list[str] = field(default_factory=list)
    missing_shards: int = 0
    cure: str = ""

    @property
    def parts(self) -> list[Path]:
        """The files that are verified one by one; a shard's record is verified with it."""
        return [f for f in self.files if not (f.name.startswith("shard_") and f.suffix == ".json")]

    @property
    def is_intact(self) -> bool:
        """True if nothing is missing or damaged."""
        return not self.faults and not self.missing_shards


def run(config: Extract) -> int:
    """Verify, print a table, and with `repair` remove damaged shards; 1 if damage is left.

    An intact store is exported where `export_pt` names a folder. With `prune` files that no run
    needs are removed after they were listed.

    Shards that `repair` removed are written again by the next run, so they do not count.
    """
    artifacts = find_artifacts(_roots(config))
    export = _export(config, artifacts)
    total = sum(len(artifact.parts) for artifact in artifacts)
    for _ in track(_verify_all(artifacts), "doctor", total, "file") if artifacts else ():
        pass
    for artifact in artifacts:
        artifact.cure = artifact.cure or _cure(artifact)
    damaged_caches = [a for a in artifacts if a.kind == CACHE and a.faults]
    repaired = damaged_caches if config.repair else []
    for artifact in repaired:
        verify.repair(artifact.path)
        artifact.cure = "taken out; run your extraction or training again: it writes just these"
        if foreign := verify.foreign_files(artifact.path):
            moved = _moved(artifact.path, foreign)
            artifact.cure = f"{moved}; all else is taken out, and the next run writes it"
    _print(artifacts)
    listed = leftovers.leftovers(a.path for a in artifacts if a.kind == CACHE)
    leftovers.show(listed, leftovers.prune(listed) if config.prune else None, config.doctor)
    for line in process_settings.apply():
        print(line)
    left = [
        artifact
        for artifact in artifacts
        if artifact.path.exists()
        and (artifact not in repaired or verify.foreign_files(artifact.path))
    ]
    code = int(any(not artifact.is_intact for artifact in left))
    if export is not None and not code:
        export.write()
    return code


def refuse_keys(config: Extract) -> None:
    """Raise ConfigError for a key of the doctor's in an extraction."""
    for name in KEYS:
        if getattr(config, name):
            cure = f"add doctor=FOLDER, or leave {name}= out"
            raise ConfigError(f"{name}= works with doctor= only", where=name, cure=cure)


def find_artifacts(roots: list[Path]) -> list[Artifact]:
    """Caches and checkpoints below the folders, each once, and folders that cannot be read.

    Names with a leading dot are skipped, and links to folders are not followed.
    """
    artifacts: dict[Path, Artifact] = {}

    def unreadable(error: OSError) -> None:
        path = Path(error.filename)
        cure = "make it readable, and run doctor again"
        fault = f"cannot be read: {error.strerror}"
        artifacts[path.resolve()] = Artifact(UNREADABLE, path, [], [fault], cure=cure)

    for root in roots:
        for folder, subfolders, _ in os.walk(root, onerror=unreadable):
            path = Path(folder)
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            kind = CACHE if verify.is_store(path) else CHECKPOINT if _is_checkpoint(path) else ""
            if kind:
                subfolders.clear()
                files = [file for file in sorted(path.rglob("[!.]*")) if file.is_file()]
                artifacts.setdefault(path.resolve(), Artifact(kind, path, files))
    return list(artifacts.values())


def _export(config: Extract, artifacts: list[Artifact]) -> StoreExport | None:
    """The export that the command asks for, checked before anything is hashed."""
    if config.export_pt is None:
        return None
    stores = [artifact.path for artifact in artifacts if artifact.kind == CACHE]
    return StoreExport(stores, str(config.doctor), config.export_pt)


def _roots(config: Extract) -> list[Path]:
    if str(config.doctor).lower() != "true":
        folder = Path(str(config.doctor)).expanduser()
        if not folder.is_dir():
            cure = "name a folder that holds caches or checkpoints, or say doctor=true"
            raise DataError("no such folder", where=str(folder), cure=cure)
        return [folder]
    caches = [config.data.cache_of(name) for name in config.data.sources]
    paths = config.paths
    # the last two may be links
    folders = [Path(path) for path in (paths.root, paths.cache, paths.outputs)]
    return [path for path in (*caches, *folders) if path.is_dir()]


def _is_checkpoint(path: Path) -> bool:
    """True if the folder is or was a checkpoint; False for a released model."""
    names = (directory.MANIFEST, directory.WEIGHTS, directory.STATE)
    existing = [name for name in names if (path / name).is_file()]
    return len(existing) > 1 or (bool(existing) and path.parent.name == "checkpoints")


def _verify_all(artifacts: list[Artifact]) -> Iterator[Artifact]:
    """Verify the artifacts; yields one once for each verified part, to show the progress."""
    for artifact in artifacts:
        if artifact.kind == UNREADABLE:
            continue
        if artifact.kind == CACHE:
            yield from _verify_cache(artifact)
            continue
        try:
            directory.read(artifact.path)
        except CorruptCheckpoint as error:
            artifact.faults.append(error.what)
            artifact.cure = error.cure
        yield from [artifact] * len(artifact.parts)


def _verify_cache(artifact: Artifact) -> Iterator[Artifact]:
    for file, fault in verify.examine(artifact.path):
        if fault == verify.NOT_WRITTEN:
            artifact.missing_shards += 1
        elif fault:
            artifact.faults.append(f"{file.relative_to(artifact.path)}: {fault}")
        yield artifact


def _cure(artifact: Artifact) -> str:
    if artifact.path.name.endswith((NEW, OLD)):
        return (
            "left by a rebuild that was stopped: give its command again (rebuild=true), or remove "
            "it with prune=true"
        )
    if artifact.kind == CACHE and (foreign := verify.foreign_files(artifact.path)):
        return f"{_moved(artifact.path, foreign)}; then look again"
    if artifact.faults:
        return repair_command(artifact.path)
    return "finish it: run your extraction or training again" if artifact.missing_shards else ""


def _moved(root: Path, foreign: list[Path]) -> str:
    names = ", ".join(str(path.relative_to(root)) for path in foreign)
    noun = "it" if len(foreign) == 1 else "them"
    return f"{names}: another program's, and never removed: move {noun} elsewhere"


def _state(artifact: Artifact) -> str:
    lines = artifact.faults[:MAX_FAULTS]
    if len(artifact.faults) > MAX_FAULTS:
        lines.append(f"and {len(artifact.faults) - MAX_FAULTS:,} more")
    if missing := artifact.missing_shards:
        lines.append(f"unfinished: {missing:,} shard{'s' * (missing != 1)} to be made")
    return "\n".join(lines) or "intact"


def _print(artifacts: list[Artifact]) -> None:
    damaged = sum(not artifact.is_intact for artifact in artifacts)
    count = f"{len(artifacts)} place{'s' * (len(artifacts) != 1)}, {damaged} damaged or unfinished"
    table = Table(title=count, title_justify="left")
    table.add_column("kind", overflow="fold")
    table.add_column("place", overflow="fold", no_wrap=True)
    table.add_column("files", overflow="fold", justify="right")
    table.add_column("MiB", overflow="fold", justify="right")
    table.add_column("state", overflow="fold")
    for artifact in artifacts:
        size = sum(file.stat().st_size for file in artifact.files if file.exists()) / 2**20
        state = Text(_state(artifact), style="" if artifact.is_intact else "red")
        path = Text(str(artifact.path))
        table.add_row(artifact.kind, path, f"{len(artifact.files):,}", f"{size:,.1f}", state)
    console = Console(soft_wrap=True)
    longest = max((len(str(artifact.path)) for artifact in artifacts), default=0)
    console.width = max(console.width, longest + OTHER_COLUMNS)  # a path is never broken into lines
    console.print(table)
    for artifact in artifacts:
        if artifact.cure:
            line = f"{artifact.path}: {artifact.cure}"
            Console(soft_wrap=True).print(line, highlight=False, markup=False)
