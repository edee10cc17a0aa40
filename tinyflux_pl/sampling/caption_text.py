"""Captions as pixels in any script, broken into lines, truncated where they are too long."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from PIL.ImageDraw import ImageDraw

from tinyflux_pl.core.printable import printable
from tinyflux_pl.sampling.fonts import faces, runs

LONGEST = 400  # characters of a caption that are looked at
CUT = "\u2026"
RIGHT_TO_LEFT = ("R", "AL")  # classes of Unicode's bidirectional algorithm
JOINER = "\u200d"


def width(text: str, pixels: int) -> float:
    """Pixels along a line of text."""
    return sum(face.getlength(part) for part, face in runs(text, pixels))


def line_height(pixels: int) -> int:
    """From one line to the next: space for every script's marks above and below."""
    return round(pixels * 1.45)


def lines(text: str, pixels: int, max_width: float, most: int) -> list[str]:
    """The text in at most `most` lines of `max_width` pixels; three dots mark a truncated text."""
    words = printable(text[:LONGEST]).split()
    if len(text) > LONGEST:
        words[-1] += CUT
    wrapped: list[str] = []
    for word in words:
        joined = f"{wrapped[-1]} {word}" if wrapped else word
        if wrapped and width(joined, pixels) <= max_width:
            wrapped[-1] = joined
            continue
        pieces = [word] if width(word, pixels) <= max_width else _pieces(word, pixels, max_width)
        if wrapped and len(pieces) > 1 and width(f"{wrapped[-1]} {pieces[0]}", pixels) <= max_width:
            wrapped[-1] = f"{wrapped[-1]} {pieces.pop(0)}"
        wrapped += pieces
    if len(wrapped) <= most:
        return wrapped
    last = wrapped[most - 1]
    while last and width(last + CUT, pixels) > max_width:
        last = last[:-1].rstrip()
    return [*wrapped[: most - 1], last + CUT]


def write(pen: ImageDraw, at: tuple[float, float], text: str, pixels: int, fill: str) -> None:
    """Draw one line with its top left corner at (x, y).

    The parts of a line that begins right to left are placed in reverse order.
    """
    x, y = at
    parts = runs(text, pixels)
    if _begins_right_to_left(text):
        parts = parts[::-1]
    base = y + faces(pixels)[0].getmetrics()[0]
    for part, face in parts:
        pen.text((x, base), part, fill=fill, font=face, anchor="ls")
        x += face.getlength(part)


def _begins_right_to_left(text: str) -> bool:
    strong = (unicodedata.bidirectional(character) for character in text)
    return next((kind for kind in strong if kind in ("L", *RIGHT_TO_LEFT)), "L") in RIGHT_TO_LEFT


def _pieces(word: str, pixels: int, max_width: float) -> list[str]:
    """A word that is longer than a line, as in scripts without spaces, in pieces that fit."""
    pieces = [""]
    for cluster in _clusters(word):
        if pieces[-1] and width(pieces[-1] + cluster, pixels) > max_width:
            pieces.append("")
        pieces[-1] += cluster
    return pieces


def _clusters(word: str) -> Sequence[str]:
    """Characters with the marks that belong to them."""
    clusters: list[str] = []
    for character in word:
        marks = unicodedata.category(character).startswith("M") or character == JOINER
        if clusters and (marks or clusters[-1].endswith(JOINER)):
            clusters[-1] += character
        else:
            clusters.append(character)
    return clusters
