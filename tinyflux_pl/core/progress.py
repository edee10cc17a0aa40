"""Progress bars: what is running, how fast, and when it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], title: str, total: int, unit: str, weight: int = 1) -> Iterator[T]:
    """Iterate with a bar that counts `weight` units an item, up to `total`."""
    from tqdm import tqdm

    # A log file gets a line now and then instead of a bar redrawn many times a second.
    interval = 0.2 if sys.stderr.isatty() else 10.0
    with tqdm(total=total, desc=title, unit=unit, mininterval=interval, file=sys.stderr) as bar:
        for item in items:
            yield item
            bar.update(min(weight, total - bar.n))
