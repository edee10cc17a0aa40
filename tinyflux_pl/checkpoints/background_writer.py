"""A thread that writes while training goes on: one piece of work at a time, and no failure lost."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread


class BackgroundWriter:
    """Runs what it is given in a thread; what the work raised is raised, as it was, by the next call.

    The thread is no daemon: an interpreter that ends waits for it.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._failure: BaseException | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Wait for the work before, raise its failure, then begin this one."""
        self.wait()
        thread = Thread(target=self._run, args=(work,), name="checkpoint writer")
        thread.start()
        self._thread = thread

    def check(self) -> None:
        """Raise what the last work raised, if it has ended already; wait for nothing."""
        if self._failure is not None:
            self.wait()

    def wait(self) -> None:
        """Return once nothing is being written; raise what the last work raised, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as failure:
            self._failure = failure
