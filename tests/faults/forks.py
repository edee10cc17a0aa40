"""Forked children of one warm process: imports are paid once, and tests may kill them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

LIFETIME = 600  # seconds after which the kernel ends a child that hangs


@dataclass(frozen=True)
class Ended:
    """Exit code of a child (minus the number of a killing signal) and its output."""

    code: int
    printed: str


class Child:
    """A function in a forked process, its output in `log`; gone when the block is left."""

    def __init__(self, work: Callable[[], Any], log: Path) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.log = log
        log.touch()  # a child may be killed before it opens it
        self.pid = os.fork()
        if not self.pid:
            _become(work, log)
        self._code: int | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def alive(self) -> bool:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code is None

    def send(self, number: int) -> None:
        if self.alive():
            os.kill(self.pid, number)

    def kill(self) -> Ended:
        self.send(signal.SIGKILL)
        return self.wait()

    def wait(self, timeout: float = 120.0) -> Ended:
        """The end of the child; one that outlives `timeout` is killed and is a failure."""
        deadline = time.monotonic() + timeout
        while self.alive():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(
                    f"a child ran longer than {timeout} s:\n{self.log.read_text()[-3000:]}"
                )
            time.sleep(0.002)
        return Ended(int(self._code or 0), self.log.read_text(errors="replace"))


def run(work: Callable[[], Any], log: Path, timeout: float = 120.0) -> Ended:
    """Run `work` to its end in a child."""
    with Child(work, log) as child:
        return child.wait(timeout)


def killed_after(work: Callable[[], Any], seconds: float, log: Path) -> Ended:
    """Run `work` in a child and SIGKILL it after so long, wherever it is then."""
    with Child(work, log) as child:
        time.sleep(seconds)
        return child.kill()


def _become(work: Callable[[], Any], log: Path) -> None:
    """Run the child to its end, never returning into pytest."""
    code = 1
    signal.alarm(LIFETIME)
    # tqdm's lock is a semaphore that forked processes share: a child that was killed while it held
    # it would stop every later child at its first progress bar.
    tqdm.set_lock(threading.RLock())
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
