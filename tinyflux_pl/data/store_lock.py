"""One writer a folder: a lock that the kernel frees when its owner dies, so that none is ever stale."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyflux_pl.core.errors import DataError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; raise DataError with the owner's process id if another process has it."""
    with open(folder / ".lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            cure = "wait for it, or stop it; what it has written is kept"
            what = f"the store is being written by process {owner}"
            raise DataError(what, where=str(folder), cure=cure) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
