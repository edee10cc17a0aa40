"""Printed tables: titled rows of a label and a text, in which no path is ever broken."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from tinyflux_pl.core.printable import printable

NARROWEST = 20  # columns of a text beside a long label


def show(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print the title, then each label with its text, wrapped between words.

    A line that holds a path is not wrapped at all: it stays one that can be copied, or opened, as a
    whole.
    """
    console = Console(soft_wrap=True)
    console.print(Text(printable(title), style="bold"))
    labels = max((len(label) for label, _ in rows), default=0)
    width = max(console.width - labels - 4, NARROWEST)
    for label, text in rows:
        lines = [
            part for line in printable(text).splitlines() or [""] for part in _wrapped(line, width)
        ]
        for number, line in enumerate(lines):
            start = Text(f"  {'' if number else printable(label):<{labels}}  ", style="cyan")
            console.print(start.append(Text(line, style="default")))


def line(text: str) -> None:
    """Print one line, however long."""
    Console(soft_wrap=True).print(printable(text), highlight=False, markup=False)


def _wrapped(text: str, width: int) -> list[str]:
    if os.sep in text:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
