"""Act just before the n-th system call that changes a folder, without hooks in production code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod")
Action = Callable[[int, str, str], None]


def before_changes(folder: Path, act: Action) -> None:
    """Call act(n, kind, path) before each change below `folder`, in a forked child.

    It cannot be undone. Kinds are Python's audit events, `os.rename` with the new name last, and
    `fsync`, which has no event. A file opened for reading is no change. Kinds are Python's audit
    events, `os.rename` with the new name last, and `fsync`, which has no event. A file opened to be
    read is no change.
    """
    inside, counter = os.path.realpath(folder), iter(range(10**9))
    fsync = os.fsync

    def report(kind: str, path: str) -> None:
        act(next(counter), kind, path)

    def hook(event: str, args: tuple) -> None:
        if event not in CHANGES or not isinstance(args[0], str | os.PathLike):
            return
        path = os.fspath(args[0])
        # shutil.rmtree names what it removes relative to a handle
        if not path.startswith(inside) and ("/" in path or event not in ("os.remove", "os.rmdir")):
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        report(event, f"{path} -> {args[1]}" if event == "os.rename" else path)

    def audited_fsync(handle: int) -> None:
        report("fsync", os.readlink(f"/proc/self/fd/{handle}"))
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
    """Refuse the `chosen` changes with this errno, as the system would; never refuse removals."""

    def act(n: int, kind: str, path: str) -> None:
        if kind not in ("os.remove", "os.rmdir") and chosen(n, kind, path):
            raise OSError(error, os.strerror(error), path)

    return act


def tell(n: int, kind: str, path: str) -> None:
    """Print the change, for a test that wants to know which there are."""
    print(f"change {n} {kind} {path}")
