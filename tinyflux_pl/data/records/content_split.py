"""The validation split, by content hashes, so that copies of one file are never separated."""

from __future__ import annotations

from collections.abc import Iterable

# the cure for an empty split of a source of that name
BOTH_ALL = (
    "set data.validation_fraction above 0, or train and validate on the same ones: "
    "data.sources.{0}.train.split=all data.sources.{0}.validation.split=all"
)


def held_out(contents: Iterable[str], fraction: float) -> set[str]:
    """The hex hashes below `fraction`, read as numbers in [0, 1).

    At least one of two hashes, never all.
    """
    hashes = sorted(set(contents))
    if fraction <= 0 or len(hashes) < 2:
        return set()
    chosen = {h for h in hashes if int(h[:16], 16) / 2**64 < fraction} or set(hashes[:1])
    return chosen - {hashes[-1]} if len(chosen) == len(hashes) else chosen
