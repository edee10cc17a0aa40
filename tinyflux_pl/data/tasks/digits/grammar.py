"""The captions of one digit, and their parser."""

from __future__ import annotations

from tinyflux_pl.core.errors import CaptionError

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GRAMMAR = 'name one digit, as a word or a figure: "the digit seven" or "a handwritten 7"'
TEMPLATES = (
    "the digit {name}",
    "a handwritten {name}",
    "a handwritten {digit}",
    "the digit {digit}",
)


def caption_of(digit: int, template: int) -> str:
    """The caption of one digit in one of the TEMPLATES."""
    return TEMPLATES[template].format(name=NAMES[digit], digit=digit)


def parse(caption: str) -> int:
    """The digit that a caption names.

    CaptionError, with the grammar, if it names none or several.
    """
    words = caption.lower().replace(",", " ").replace(".", " ").split()
    digits = {NAMES.index(w) for w in words if w in NAMES}
    digits |= {int(w) for w in words if w.isdecimal() and len(w) == 1}
    if len(digits) != 1:
        count = "several digits" if digits else "no digit"
        raise CaptionError(f"not a caption of one digit: {caption!r} names {count}", cure=GRAMMAR)
    return digits.pop()
