"""Locks of caches that several processes use; a process that has to wait shows the progress."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tinyflux_pl.app.caches.replacement import NEW
from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.core import interruption, progress
from tinyflux_pl.core.file_lock import FILLING, locked


@contextmanager
def locked_for_writing(source: Source) -> Generator[None]:
    """Hold a source's folder exclusively, after waiting for the process that holds it.

    If that process dies, the kernel frees the lock, and one of those that wait continues its work.
    Raises Interrupted if a stop is requested meanwhile.
    """
    source.folder.mkdir(parents=True, exist_ok=True)
    waiting = _Waiting(source)
    with locked(source.folder, wait=waiting):
        waiting.end()
        yield


@contextmanager
def locked_for_filling(source: Source, shared: bool) -> Generator[None]:
    """Lock a source's caches for filling them, inside `locked_for_writing`.

    With `shared` several processes may fill them at once; without it this one waits for the others.
    """
    waiting = _Waiting(source)
    with locked(source.folder, FILLING, wait=waiting, shared=shared):
        waiting.end()
        yield


class _Waiting:
    """Prints which process this one waits for, and shows that process's progress."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._owner = ""
        self._since = time.monotonic()
        self._bar: Any = None

    def __call__(self, owner: str) -> None:
        """Called at each attempt to lock, while `owner` has the lock."""
        interruption.poll()
        if owner != self._owner:  # the first, or one that was faster when the first one died
            self._owner = owner
            progress.say(
                f"waiting for the cache of {self.source.name} in {self.source.folder}, which "
                f"process {owner} is filling"
            )
        written = self._written()
        if self._bar is None:
            title = f"wait for {self.source.name}"
            self._bar = progress.bar(title, self._total(), "shard", done=written, leave=False)
        self._bar.update(written - self._bar.n)

    def end(self) -> None:
        """Close the bar, and say how long it took."""
        if self._bar is not None:
            self._bar.close()
            seconds = time.monotonic() - self._since
            progress.say(f"waited {seconds:.0f} s for the cache of {self.source.name}")

    def _written(self) -> int:
        """Number of recorded shards of this run's groups, in the cache or its replacement."""
        count = 0
        for cache in self.source.caches.values():
            folders = [cache.folder, cache.folder.with_name(cache.folder.name + NEW)]
            of_groups = [(folder / group) for folder in folders for group in cache.groups]
            count += sum(len(list(folder.glob("shard_*.json"))) for folder in of_groups)
        return count

    def _total(self) -> int:
        """Number of shards of this run's groups."""
        return sum(
            len(cache.groups) * math.ceil(len(cache.records) / cache.config.data.shard_size)
            for cache in self.source.caches.values()
        )
