"""Escape control characters in untrusted text, for terminals and logs."""

from __future__ import annotations

import re

# control characters but tab and newline, marks that reverse what is read, halves of surrogate pairs
_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Escape control characters and characters that cannot be encoded."""
    return _ACTIVE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
