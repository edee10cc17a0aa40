"""Which contents are held out for validation: decided by their own hashes, so that copies of one never part."""

from __future__ import annotations

from collections.abc import Iterable

# what mends a split that is empty, of a source of that name
BOTH_ALL = (
    "set data.validation_fraction above 0, or train and validate on the same ones: "
    "data.sources.{0}.train.split=all data.sources.{0}.validation.split=all"
)


def held_out(contents: Iterable[str], fraction: float) -> set[str]:
    """The hex hashes that, read as numbers in [0, 1), are below `fraction`: at least one of two, never all."""
    hashes = sorted(set(contents))
    if fraction <= 0 or len(hashes) < 2:
        return set()
    held = {h for h in hashes if int(h[:16], 16) / 2**64 < fraction} or set(hashes[:1])
    return held - {hashes[-1]} if len(held) == len(hashes) else held
