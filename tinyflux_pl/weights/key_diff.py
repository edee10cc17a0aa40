"""Differences between a file's keys and shapes and a network's, as a short message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.core.printable import printable

Shapes = Mapping[str, tuple[int, ...]]
MOST_GROUPS = 6  # named of each kind: groups of keys that differ in their numbers alone
MOST_LETTERS = 90  # of one key


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Key -> shape of a state dict's tensors."""
    return {key: tuple(value.shape) for key, value in tensors.items()}


def require_match(expected: Shapes, actual: Shapes, where: str, cure: str) -> None:
    """Raise CheckpointMismatch unless keys and shapes agree.

    A few of each kind are named, those alike once.
    """
    what = differences(expected, actual)
    if what:
        raise CheckpointMismatch(
            f"the weights are not this network's; {what}", where=where, cure=cure
        )


def differences(expected: Shapes, actual: Shapes) -> str:
    """Keys of another shape, missing and unexpected in `held`; "" if there are none."""
    shaped = [key for key in expected if key in actual and actual[key] != expected[key]]
    missing, unexpected = (
        [k for k in expected if k not in actual],
        [k for k in actual if k not in expected],
    )
    if actual and len(missing) == len(expected):
        example = _shortened(sorted(expected, key=_order)[0])
        what = (
            f"none of its {len(actual):,} keys is one of the {len(expected):,} of this network, "
            f"such as {example}"
        )
        return f"{what}; it holds {listed({key: '' for key in unexpected})}"
    kinds = {
        "of another shape": {key: f" {actual[key]} for {expected[key]}" for key in shaped},
        "missing": dict.fromkeys(missing, ""),
        "unexpected": dict.fromkeys(unexpected, ""),
    }
    return "; ".join(
        f"{len(keys):,} {kind}: {listed(keys)}" for kind, keys in kinds.items() if keys
    )


def listed(notes: Mapping[str, str]) -> str:
    """Keys with a note each, in the order of their numbers.

    Those that differ in them alone are named once.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for key in sorted(notes, key=_order):
        groups.setdefault((re.sub(r"\d+", "0", key), notes[key]), []).append(key)
    names = [
        f"{_shortened(keys[0])}{note}"
        + (f" (and {len(keys) - 1:,} alike)" if len(keys) > 1 else "")
        for (_, note), keys in groups.items()
    ]
    num_omitted = _count(list(groups.values())[MOST_GROUPS:])
    return ", ".join(names[:MOST_GROUPS]) + (f" and {num_omitted:,} more" if num_omitted else "")


def _count(groups: Iterable[list[str]]) -> int:
    return sum(len(keys) for keys in groups)


def _order(key: str) -> list[tuple[int, str]]:
    """Keys in the order of their numbers: 2 before 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d{1,9})", key[:1000])
    ]


def _shortened(key: str) -> str:
    return printable(key if len(key) <= MOST_LETTERS else f"{key[:MOST_LETTERS]}...")
