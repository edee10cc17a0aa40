"""Progress bars: the running task, its speed and its end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tinyflux_pl.core import console_log, interruption
from tinyflux_pl.core.printable import printable

T = TypeVar("T")


def bar(title: str, total: int, unit: str, *, done: int = 0, leave: bool = True) -> Any:
    """A tqdm bar on stderr, `done` of `total` behind it.

    Without `leave` it is shown on terminals only.
    """
    from tqdm import tqdm

    console_log.write_above_bars()
    terminal = sys.stderr.isatty()
    # A log file gets a line now and then instead of a bar redrawn many times a second.
    interval = 0.2 if terminal else 10.0
    hidden = not (leave or terminal)
    return tqdm(
        total=total,
        desc=title,
        unit=unit,
        initial=done,
        mininterval=interval,
        leave=leave,
        disable=hidden,
        file=sys.stderr,
    )


def track(
    items: Iterable[T], title: str, total: int, unit: str, weight: int = 1, *, leave: bool = True
) -> Iterator[T]:
    """Iterate with a bar that counts `weight` units an item, up to `total`.

    A requested stop takes effect here.

    Raises Interrupted between two items.
    """
    done = 0
    with bar(title, total, unit, leave=leave) as visible:
        for item in items:
            interruption.poll()
            yield item
            step = min(weight, total - done)
            done += step
            visible.update(step)


def say(line: str) -> None:
    """Print a line on stdout, above the running bars."""
    from tqdm import tqdm

    tqdm.write(printable(line), file=sys.stdout)
    sys.stdout.flush()
