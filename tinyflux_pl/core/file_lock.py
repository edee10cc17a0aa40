"""One writer a folder: a lock that the kernel frees when its owner dies, so that none is ever
stale.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from tinyflux_pl.core.errors import DataError

PATIENCE = 2.0  # seconds in which whoever has just taken the lock has written who it is


@contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Hold the folder's lock; raise DataError with the owner's process id if another process has
    it.
    """
    with open(folder / name, "a+") as lock:
        _take(lock, folder)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def _take(lock: TextIOWrapper, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip()
            # the id of one that was killed stays until the next owner writes its own
            if _lives(owner) or time.monotonic() > deadline:
                cure = "wait for it, or stop it; what it has written is kept"
                what = f"the cache is being written by process {owner or 'unknown'}"
                raise DataError(what, where=str(folder), cure=cure) from error
        time.sleep(0.01)


def _lives(owner: str) -> bool:
    try:
        os.kill(int(owner), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True
