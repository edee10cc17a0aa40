"""A thread that writes while training continues: one job at a time; every failure is raised."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread


class BackgroundWriter:
    """Runs one job in a thread; an exception of the job is re-raised by the next call.

    The thread is not a daemon: the interpreter waits for it at exit.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._failure: BaseException | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Wait for the previous job, raise its failure, then start this one."""
        self.wait()
        thread = Thread(target=self._run, args=(work,), name="checkpoint writer")
        thread.start()
        self._thread = thread

    def check(self) -> None:
        """Raise the failure of the last job if it has ended; do not wait."""
        if self._failure is not None:
            self.wait()

    def wait(self) -> None:
        """Return once no job runs; raise the failure of the last one, once."""
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
