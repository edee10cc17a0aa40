"""Something happens just before the n-th system call that changes a folder; production code knows
nothing of it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod")
Action = Callable[[int, str, str], None]


def before_changes(folder: Path, act: Action) -> None:
    """Call act(n, kind, path) before each change below `folder`: for a forked child, as it cannot
    be undone.

    Kinds are Python's audit events, `os.rename` with the new name last, and `fsync`, which has no
    event. A file opened to be read is no change.
    """
    inside, counter = os.path.realpath(folder), iter(range(10**9))
    fsync = os.fsync

    def told(kind: str, path: str) -> None:
        act(next(counter), kind, path)

    def hook(event: str, given: tuple) -> None:
        if event not in CHANGES or not isinstance(given[0], str | os.PathLike):
            return
        path = os.fspath(given[0])
        # shutil.rmtree names what it removes relative to a handle
        if not path.startswith(inside) and ("/" in path or event not in ("os.remove", "os.rmdir")):
            return
        if event == "open" and not given[2] & (os.O_WRONLY | os.O_RDWR):
            return
        told(event, f"{path} -> {given[1]}" if event == "os.rename" else path)

    def audited_fsync(handle: int) -> None:
        told("fsync", os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    os.fsync = audited_fsync
    sys.addaudithook(hook)


def die_at(chosen: Callable[[int, str, str], bool]) -> Action:
    """SIGKILL this process before the first change that is `chosen`."""

    def act(n: int, kind: str, path: str) -> None:
        if chosen(n, kind, path):
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def fail_at(chosen: Callable[[int, str, str], bool], error: int) -> Action:
    """Refuse the changes that are `chosen`, as the system does with this errno; removing is never
    refused.
    """

    def act(n: int, kind: str, path: str) -> None:
        if kind not in ("os.remove", "os.rmdir") and chosen(n, kind, path):
            raise OSError(error, os.strerror(error), path)

    return act


def tell(n: int, kind: str, path: str) -> None:
    """Print the change, for a test that wants to know which there are."""
    print(f"change {n} {kind} {path}")
