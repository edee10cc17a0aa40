"""Escape what a terminal or a reader cannot tell apart in untrusted text."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict

# control characters but tab and newline, marks that reverse what is read, halves of surrogate pairs
_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


_WORDS = re.compile(r"[^\s,;:'\"()\[\]]+")


def printable(text: str) -> str:
    """Escape control characters and characters that cannot be encoded.

    Of two words that look the same, equal but for their Unicode composition, the decomposed one is
    escaped too: cafe\\u0301.png.
    """
    text = _distinct(text)
    return _ACTIVE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def _distinct(text: str) -> str:
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    spellings: dict[str, set[str]] = defaultdict(set)
    for word in _WORDS.findall(text):
        spellings[unicodedata.normalize("NFC", word)].add(word)

    def escaped(match: re.Match[str]) -> str:
        word = match[0]
        composed = unicodedata.normalize("NFC", word)
        return word if word == composed or len(spellings[composed]) == 1 else ascii(word)[1:-1]

    return _WORDS.sub(escaped, text)
