"""The shards of a group that this process fills, with its progress; others may fill it too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.cache.disk_space import require_disk_space
from tinyflux_pl.cache.rebuild import ReusableRows
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core import interruption
from tinyflux_pl.core.progress import bar, say


class GroupWork:
    """The shards of a group that this process computes, in blocks, behind one progress bar.

    Other processes may fill the same group: the bar counts their rows too, `computed` does not.
    """

    def __init__(
        self, store: CacheStore, reusable: ReusableRows, group: str, title: str, batch: int
    ) -> None:
        self.computed = 0
        self._store = store
        self._group = group
        self._title = title
        self._batch = batch
        pending = store.pending(group)
        self._missing = {k: reusable.missing_rows(store.rows(k)) for k in pending}
        self._remaining = set(pending)
        self._bar: Any = None
        self._waits = False
        self._has_space = False

    def shards(self) -> Iterator[int]:
        """Each shard left to this process, locked meanwhile; ends with the group."""
        total = sum(map(len, self._missing.values()))
        if not total:
            yield from self._store.shards_to_write(self._group, self._wait)
            return
        with bar(self._title, total, "image") as self._bar:
            for k in self._store.shards_to_write(self._group, self._wait):
                yield k
                self._remaining.discard(k)
            self._count_recorded()

    def blocks(self, k: int) -> Iterator[list[int]]:
        """The rows of shard k that must be computed, in blocks; a requested stop raises here."""
        for block in _split(self._missing[k], self._batch):
            interruption.poll()
            yield block
            self.computed += len(block)
            self._bar.update(len(block))

    def write(self, k: int, columns: dict[str, Tensor], captions: list[str] | None = None) -> None:
        """Write shard k; DiskFull before the first one if there is no space for all."""
        if not self._has_space:
            require_disk_space(self._store, self._group, columns)
            self._has_space = True
        self._store.write_shard(self._group, k, columns, captions)

    def _wait(self, count: int) -> None:
        interruption.poll()
        if not self._waits:
            self._waits = True
            say(f"{self._title}: waiting for {count} shards that other processes write")
        self._count_recorded()

    def _count_recorded(self) -> None:
        """Count the rows of shards that other processes have written."""
        recorded = {
            k for k in self._remaining if self._store.group(self._group).record(k) is not None
        }
        self._remaining -= recorded
        if self._bar is not None:
            self._bar.update(sum(len(self._missing[k]) for k in recorded))


def _split(rows: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Columns of several blocks, concatenated; {} without blocks."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}
