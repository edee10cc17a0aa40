"""Graceful stopping: a signal sets a flag, and long work polls it where it can stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from tinyflux_pl.core.errors import Interrupted

# Slurm sends what its --signal names before it ends a job; SIGUSR1 is the custom.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# A launcher passes on what its whole process group has already received: that is one request, not
# two.
SAME_REQUEST = 2.0  # seconds

_request: tuple[int, float] | None = None  # the signal's number, and when it came
_listening = False


@contextmanager
def listening() -> Generator[None]:
    """Inside, the first signal of SIGNALS sets the flag that `poll` reads.

    A second one ends the process at once.

    The earlier handlers are restored afterwards. It does nothing outside the main thread, which
    alone gets signals.
    """
    global _request, _listening
    if threading.current_thread() is not threading.main_thread() or _listening:
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _request, _listening = None, True
    try:
        reinstall_handlers()
        yield
    finally:
        _request, _listening = None, False
        for number, handler in before.items():
            signal.signal(number, handler)


def reinstall_handlers() -> None:
    """Reinstall the handlers that a library has replaced; a no-op outside `listening`."""
    if _listening:
        for number in SIGNALS:
            signal.signal(number, _on_signal)


@contextmanager
def postponed() -> Generator[None]:
    """Block SIGNALS, here and in processes that are started, which do not ignore them yet.

    They are delivered afterwards here, and dropped by `leave_to_parent` there.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent() -> None:
    """Ignore SIGNALS in a worker process: they reach the whole group, and the parent decides."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # those that came while `postponed` are gone
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def requested_signal() -> int:
    """The number of the signal that requested a stop; 0 if none has."""
    return 0 if _request is None else _request[0]


def request_stop(number: int) -> None:
    """Request a stop as the signal of that number would; the first request counts."""
    global _request
    _request = _request or (number, time.monotonic())


def poll() -> None:
    """Raise Interrupted if a stop was requested; call it between units of work."""
    if number := requested_signal():
        raise Interrupted(number)


def _on_signal(number: int, _: FrameType | None) -> None:
    if _request is None:
        request_stop(number)
        message = (
            f"\n{signal.Signals(number).name}: stopping once the work so far is saved; send it "
            "again to stop now\n"
        )
        os.write(2, message.encode())  # not print: the handler may have come in the middle of one
    elif time.monotonic() - _request[1] > SAME_REQUEST:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
