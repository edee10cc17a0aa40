"""The time that training waits for batches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any


class DataWait:
    """Seconds spent in `next` of the iterators that it has timed."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same items; the waiting time for each is added to `seconds`."""
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - started
            yield batch
