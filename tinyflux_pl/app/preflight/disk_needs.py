"""What a run will write, place by place, compared with what the disks have room for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.app.preflight.cache_needs import GroupNeed
from tinyflux_pl.core.errors import DiskFull, NotWritable
from tinyflux_pl.engine.memory_plan import size

CHECKPOINT_FILES, SLACK = 6, 1.02
LOG_ROW, LOG_KEEP = 400, 2**20  # bytes of a logged row; of configuration, results and the like


@dataclass(frozen=True)
class DiskNeed:
    """Bytes and files to be written below one folder."""

    what: str
    folder: Path
    bytes: int
    files: int


def run_needs(config: dict[str, Any], start: int, checkpoint: int, image_size: tuple[int, int]) -> list[DiskNeed]:
    """Checkpoints (all that are kept, and one more while it is written), pictures and logs from step `start` on.

    A checkpoint has `checkpoint` bytes; pictures are counted as if they did not compress.
    """
    callbacks, folder, steps = config["callbacks"], Path(config["run_dir"]), config["steps"]
    saves, previews = callbacks["checkpoint"], callbacks["preview"]
    there = len(list((folder / "checkpoints").glob("[!.]*/manifest.json")))
    kept = min(saves["keep"], times(start, steps, saves["every_steps"]) + there)
    kept += saves["keep"] if saves["every_epochs"] else 0
    written = max(0, kept - there) + 1
    pictures = times(start, steps, previews["every_steps"])
    pixels = 3 * image_size[0] * image_size[1] * previews["count"]
    rows = (steps - start) // max(1, callbacks["log_every_steps"]) + 1
    return [
        DiskNeed("checkpoints", folder / "checkpoints", written * checkpoint, written * CHECKPOINT_FILES),
        DiskNeed("pictures and logs", folder, pictures * pixels + rows * LOG_ROW + LOG_KEEP, pictures + 8),
    ]


def cache_disk(caches: Sequence[GroupNeed], samples: Sequence[Source]) -> list[DiskNeed]:
    """One need for each group that lacks rows, of the bytes that the samples' rows have."""
    stores = {(c.source, c.split): c.store for source in samples for c in source.caches.values()}
    return [
        DiskNeed("caches", n.store, n.rows * stores[n.source, n.split].row_bytes[n.group], n.files)
        for n in caches
        if n.rows
    ]


def require_room(needs: Sequence[DiskNeed]) -> None:
    """Raise NotWritable or DiskFull unless every disk has room for all that goes to it, in bytes and in files."""
    disks: dict[int, list[DiskNeed]] = {}
    for need in needs:
        disks.setdefault(_place(need.folder).stat().st_dev, []).append(need)
    for found in disks.values():
        place = _place(found[0].folder)
        wanted, count = round(sum(n.bytes for n in found) * SLACK), sum(n.files for n in found)
        free, more = room(place)
        if wanted > free:
            raise DiskFull(
                f"the run will write {size(wanted)} ({listed(found)}) and {size(free)} are free",
                where=str(place),
                cure="free some space, write elsewhere with paths.root=/another/disk, "
                "or keep less: callbacks.checkpoint.keep=1",
            )
        if more is not None and count > more:
            raise DiskFull(
                f"the run will write {count:,} files and the disk has room for {more:,} more",
                where=str(place),
                cure="remove files, write elsewhere with paths.root=/another/disk, or raise data.shard_size",
            )


def listed(needs: Sequence[DiskNeed]) -> str:
    """What and how much, for a reader."""
    kinds = dict.fromkeys(need.what for need in needs if need.bytes)
    return ", ".join(f"{what} {size(sum(n.bytes for n in needs if n.what == what))}" for what in kinds)


def room(place: Path) -> tuple[int, int | None]:
    """Bytes and files that this user may still write there; no number where files have no limit of their own."""
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None


def times(start: int, steps: int, every: int) -> int:
    """How often something that comes every so many steps, and at the end, comes after `start`."""
    return (steps // every - start // every if every else 0) + bool(not every or steps % every)


def _place(folder: Path) -> Path:
    """The nearest folder that exists; raises NotWritable where nothing can be made in it."""
    place = folder
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise NotWritable("a file lies where a folder is needed", where=str(place), cure="move it, or choose run=NAME")
    if not os.access(place, os.W_OK | os.X_OK):
        cure = "change its permissions, or write elsewhere with paths.root=/another/disk"
        raise NotWritable("this user may not write here", where=str(place), cure=cure)
    return place
