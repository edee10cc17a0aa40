"""Locks of single shards, so that several processes can fill one group of a store."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyflux_pl.cache.shards import CacheGroup

FILE = ".writing"
POLL_SECONDS = 0.2


class ShardLocks:
    """Byte k of a file in the group's folder is the lock of shard k.

    The kernel frees a process's locks when it ends. They are POSIX locks: within one process they
    exclude nothing, and one group is to be opened once at a time.
    """

    def __init__(self, folder: Path) -> None:
        self.file = open(folder / FILE, "ab")  # noqa: SIM115 - `opened` closes it

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Generator[ShardLocks]:
        """The locks of a folder; those still held are released at the end."""
        locks = cls(folder)
        try:
            yield locks
        finally:
            locks.file.close()

    def take(self, k: int) -> bool:
        """Lock shard k; False if another process has it."""
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, k)
        except (BlockingIOError, PermissionError):  # systems differ in the error
            return False
        return True

    def release(self, k: int) -> None:
        """Free shard k."""
        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, k)


def shards_to_write(
    group: CacheGroup, pending: list[int], wait: Callable[[int], None]
) -> Iterator[int]:
    """Each shard left for this process to write, locked while the caller has it.

    Shards that other processes are writing are passed over, and come later if those end without
    them; `wait(count)` is called at every look while there are no others. Returns once every shard
    is recorded.
    """
    if not pending:
        return
    with ShardLocks.opened(group.folder) as locks:
        while pending:
            busy = []
            for k in pending:
                if not locks.take(k):
                    busy.append(k)
                    continue
                try:
                    if group.record(k) is None:
                        yield k
                finally:
                    locks.release(k)
            if len(busy) == len(pending):
                wait(len(busy))
                time.sleep(POLL_SECONDS)
            pending = busy
    # whoever still has the file open finds every shard recorded
    (group.folder / FILE).unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove the partial files of killed writers from a group's folder; locked shards stay."""
    parts = list(folder.glob(".*.part"))
    if not parts:
        return
    with ShardLocks.opened(folder) as locks:
        for part in parts:
            number = part.name.removeprefix(".shard_").partition(".")[0]
            if not number.isdecimal() or locks.take(int(number)):
                part.unlink(missing_ok=True)
