"""Locks of folders, freed by the kernel when their owner dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from tinyflux_pl.core.errors import DataError

FILLING = ".filling.lock"  # of a folder of caches, beside its .lock: see app.caches.waiting
PATIENCE = 2.0  # seconds in which whoever has just taken the lock has written who it is
POLL_SECONDS = 0.2  # between two looks of a process that waits


@contextmanager
def locked(
    folder: Path,
    name: str = ".lock",
    wait: Callable[[str], None] | None = None,
    use: str = "the cache is being written",
    shared: bool = False,
) -> Generator[None]:
    """Hold the folder's lock; DataError with its owner if another process holds it.

    A `shared` one can be held by several processes, but not beside one that has it alone.

    `use` says in the message what the owner does with the folder. With `wait`, wait for the lock
    instead: `wait(owner)` is called at every look, and ends the waiting by raising. An owner is
    "PID on HOST", or "unknown" for a moment.
    """
    with open(folder / name, "a+") as lock:
        _take(lock, folder, wait, use, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"{os.getpid()} on {os.uname().nodename}")
        lock.flush()
        try:
            yield
        finally:
            if not shared:
                lock.truncate(0)


def _take(
    lock: TextIOWrapper, folder: Path, wait: Callable[[str], None] | None, use: str, mode: int
) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(lock, mode | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip()
            # the id of one that was killed stays until the next owner writes its own
            is_known = is_alive(owner) or time.monotonic() > deadline
            if is_known and wait is None:
                cure = "wait for it, or stop it; what it has written is kept"
                what = f"{use} by process {owner or 'unknown'}"
                raise DataError(what, where=str(folder), cure=cure) from error
            if is_known and wait is not None:
                wait(owner or "unknown")
                time.sleep(POLL_SECONDS)
        time.sleep(0.01)


def is_alive(owner: str) -> bool:
    """True if "PID on HOST" may be running; always True for other hosts."""
    number, _, host = owner.partition(" on ")
    if host and host != os.uname().nodename:
        return True
    try:
        os.kill(int(number), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True
