"""Differences between a file's keys and shapes and a network's, as a short message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.core.printable import printable

Shapes = Mapping[str, tuple[int, ...]]
MOST_GROUPS = 6  # of keys that differ in their numbers alone, told of each kind
MOST_LETTERS = 90  # of one key


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Key -> shape of a state dict's tensors."""
    return {key: tuple(value.shape) for key, value in tensors.items()}


def require_match(expected: Shapes, held: Shapes, where: str, cure: str) -> None:
    """Raise CheckpointMismatch unless keys and shapes agree; a few of each kind are named, those alike once."""
    told = differences(expected, held)
    if told:
        raise CheckpointMismatch(f"the weights are not this network's; {told}", where=where, cure=cure)


def differences(expected: Shapes, held: Shapes) -> str:
    """Keys of another shape, missing and unexpected in `held`; "" if there are none."""
    shaped = [key for key in expected if key in held and held[key] != expected[key]]
    missing, unexpected = [k for k in expected if k not in held], [k for k in held if k not in expected]
    if held and len(missing) == len(expected):
        such = _told(sorted(expected, key=_order)[0])
        what = f"none of its {len(held):,} keys is one of the {len(expected):,} of this network, such as {such}"
        return f"{what}; it holds {listed({key: '' for key in unexpected})}"
    kinds = {
        "of another shape": {key: f" {held[key]} for {expected[key]}" for key in shaped},
        "missing": dict.fromkeys(missing, ""),
        "unexpected": dict.fromkeys(unexpected, ""),
    }
    return "; ".join(f"{len(keys):,} {kind}: {listed(keys)}" for kind, keys in kinds.items() if keys)


def listed(notes: Mapping[str, str]) -> str:
    """Keys with a note each, in the order of their numbers; those that differ in them alone are told once."""
    groups: dict[tuple[str, str], list[str]] = {}
    for key in sorted(notes, key=_order):
        groups.setdefault((re.sub(r"\d+", "0", key), notes[key]), []).append(key)
    told = [
        f"{_told(keys[0])}{note}" + (f" (and {len(keys) - 1:,} alike)" if len(keys) > 1 else "")
        for (_, note), keys in groups.items()
    ]
    left = _count(list(groups.values())[MOST_GROUPS:])
    return ", ".join(told[:MOST_GROUPS]) + (f" and {left:,} more" if left else "")


def _count(groups: Iterable[list[str]]) -> int:
    return sum(len(keys) for keys in groups)


def _order(key: str) -> list[tuple[int, str]]:
    """Keys in the order of their numbers: 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,9})", key[:1000])]


def _told(key: str) -> str:
    return printable(key if len(key) <= MOST_LETTERS else f"{key[:MOST_LETTERS]}...")
