"""Lines of `logging` and of `warnings` on the console, above the progress bars that are running."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tinyflux_pl.core.printable import printable


@runtime_checkable
class Stream(Protocol):
    """Takes text, as sys.stdout does and as its replacements do."""

    def write(self, text: str, /) -> Any: ...

    def flush(self) -> Any: ...


class AboveBars:
    """A stream that writes to another one, above the progress bars."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write whole lines, and redraw the bars below them."""
        from tqdm import tqdm

        tqdm.write(text, file=self.stream, end="")

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()


def write_above_bars() -> None:
    """Keep the console handlers of the root logger, whoever configured them, above the bars."""
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler and handler.stream in (sys.stdout, sys.stderr):
            console: logging.StreamHandler[Any] = handler
            console.setStream(AboveBars(console.stream))


@contextmanager
def warnings_above_bars() -> Generator[None]:
    """Print each warning of the block once, on a line of its own above the bars.

    The line has neither the code nor the folder of its origin. Warnings that are recorded
    (warnings.catch_warnings) stay with their recorder. Any block of catch_warnings makes Python
    forget which warnings it has printed, hence the memory; with -W or PYTHONWARNINGS Python's own
    rule decides how often one is repeated.
    """
    before = warnings.showwarning
    printed: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        if file is not None:
            before(message, category, filename, lineno, file, line)
            return
        text = printable(" ".join(str(message).split()))
        text = f"warning: {text} ({category.__name__}, {Path(filename).name}:{lineno})"
        if text not in printed or sys.warnoptions:
            printed.add(text)
            AboveBars(sys.stderr).write(f"{text}\n")

    warnings.showwarning = show  # ty: ignore[invalid-assignment]
    try:
        yield
    finally:
        if warnings.showwarning is show:
            warnings.showwarning = before
