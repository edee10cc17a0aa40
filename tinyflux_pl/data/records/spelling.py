"""Names of the same letters in another case or Unicode composition, as file systems differ in."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def letters(name: str) -> str:
    """The name without what two spellings of it may differ in."""
    return unicodedata.normalize("NFC", name).casefold()


def spelled_otherwise(names: Iterable[str], references: Iterable[str]) -> list[str]:
    """Each name beside the one of `references` with its letters in another spelling, as ASCII."""
    by_letters: dict[str, str] = {letters(other): other for other in references}
    pairs = ((name, by_letters.get(letters(name))) for name in names)
    return [f"{name!a} for {other!a}" for name, other in pairs if other not in (None, name)]
