"""Lines of `logging` on the console, above the progress bars that are running."""

from __future__ import annotations

import logging
import sys
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Stream(Protocol):
    """Takes text, as sys.stdout does and as its replacements do."""

    def write(self, text: str, /) -> Any: ...

    def flush(self) -> Any: ...


class AboveBars:
    """A stream that writes to another one, but never into the line of a bar."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write whole lines, and draw the bars again below them."""
        from tqdm import tqdm

        tqdm.write(text, file=self.stream, end="")

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()


def write_above_bars() -> None:
    """Keep the console handlers of the root logger, whatever configured them, above the bars."""
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.stderr):
            console: logging.StreamHandler[Any] = handler
            console.setStream(AboveBars(console.stream))
