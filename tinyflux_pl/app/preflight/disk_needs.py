"""The disk space that a run will write, compared with the free space."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.app.preflight.cache_needs import GroupNeed
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core.errors import DiskFull, NotWritable
from tinyflux_pl.engine.memory_plan import size

CHECKPOINT_FILES = 6
SLACK = 1.02  # on bytes
LOG_ROW = 400  # bytes of a logged row
LOG_FILES = 2**20  # bytes of configuration, results and the like
ELSEWHERE = "write elsewhere with paths.root=/another/disk"


@dataclass(frozen=True)
class DiskNeed:
    """Bytes and files to be written below one folder."""

    what: str
    folder: Path
    bytes: int
    files: int


def run_needs(
    config: Train, start: int, checkpoint: int, image_size: tuple[int, int]
) -> list[DiskNeed]:
    """Checkpoints, pictures and logs from step `start` on.

    A checkpoint has `checkpoint` bytes; one more than is kept exists while it is written.
    Pictures are counted as if they did not compress.
    """
    callbacks, folder, steps = config.callbacks, Path(config.run_dir), config.steps
    saves, previews = callbacks.checkpoint, callbacks.preview
    present = len(list((folder / "checkpoints").glob("[!.]*/manifest.json")))
    num_kept = min(saves.keep, num_events(start, steps, saves.every_steps) + present)
    num_kept += saves.keep if saves.every_epochs else 0
    written = max(0, num_kept - present) + 1
    pictures = num_events(start, steps, previews.every_steps)
    picture_bytes = 3 * image_size[0] * image_size[1] * previews.count
    rows = (steps - start) // max(1, callbacks.log_every_steps) + 1
    logs = pictures * picture_bytes + rows * LOG_ROW + LOG_FILES
    saved = (written * checkpoint, written * CHECKPOINT_FILES)
    return [
        DiskNeed("checkpoints", folder / "checkpoints", *saved),
        DiskNeed("pictures and logs", folder, logs, pictures + 8),
    ]


def cache_disk(caches: Sequence[GroupNeed], samples: Sequence[Source]) -> list[DiskNeed]:
    """Disk needs of groups with missing rows, from the row sizes of the in-memory samples."""
    caches_by_split = {(c.source, c.split): c for s in samples for c in s.caches.values()}
    needs = []
    for need in caches:
        if need.rows:
            store: Any = caches_by_split[need.source, need.split].store  # an InMemoryStore
            num_bytes = need.rows * store.row_bytes[need.group]
            needs.append(DiskNeed("caches", need.store, num_bytes, need.files))
    return needs


def require_space(needs: Sequence[DiskNeed]) -> None:
    """Raise NotWritable, or DiskFull unless every disk has space for the bytes and files."""
    disks: dict[int, list[DiskNeed]] = {}
    for need in needs:
        disks.setdefault(_existing_folder(need.folder).stat().st_dev, []).append(need)
    for on_disk in disks.values():
        folder = _existing_folder(on_disk[0].folder)
        num_bytes = round(sum(need.bytes for need in on_disk) * SLACK)
        num_files = sum(need.files for need in on_disk)
        free_bytes, free_files = free_space(folder)
        if num_bytes > free_bytes:
            raise DiskFull(
                f"the run will write {size(num_bytes)} ({summary(on_disk)}), but "
                f"{size(free_bytes)} are free",
                where=str(folder),
                cure=f"free some space, {ELSEWHERE}, or keep less: callbacks.checkpoint.keep=1",
            )
        if free_files is not None and num_files > free_files:
            raise DiskFull(
                f"the run will write {num_files:,} files, but the disk has space for "
                f"{free_files:,} more",
                where=str(folder),
                cure=f"remove files, {ELSEWHERE}, or raise data.shard_size",
            )


def summary(needs: Sequence[DiskNeed]) -> str:
    """Kinds and sizes, as in "caches 1.2 GiB, checkpoints 300 MiB"."""
    kinds: dict[str, int] = {}
    for need in needs:
        if need.bytes:
            kinds[need.what] = kinds.get(need.what, 0) + need.bytes
    return ", ".join(f"{kind} {size(count)}" for kind, count in kinds.items())


def free_space(folder: Path) -> tuple[int, int | None]:
    """Free bytes and files for this user; None: the number of files is unlimited."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None


def num_events(start: int, steps: int, every: int) -> int:
    """Number of events after step `start`: one every `every` steps, and one at the end."""
    regular = steps // every - start // every if every else 0
    return regular + bool(not every or steps % every)


def _existing_folder(folder: Path) -> Path:
    """The nearest existing parent; NotWritable if nothing can be created in it."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        what, cure = "a file is where a folder is needed", "move it, or choose run=NAME"
        raise NotWritable(what, where=str(folder), cure=cure)
    if not os.access(folder, os.W_OK | os.X_OK):
        what, cure = "this user may not write here", f"change its permissions, or {ELSEWHERE}"
        raise NotWritable(what, where=str(folder), cure=cure)
    return folder
