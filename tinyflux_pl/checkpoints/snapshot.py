"""A copy of what training is about to change, in memory of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tinyflux_pl.core.errors import CheckpointMismatch

PLAIN = (bool, int, float, str)


def snapshot(value: Any) -> Any:
    """`value` with every tensor copied to the CPU, in plain containers and plain types all the way down.

    Raises CheckpointMismatch for anything that a checkpoint could not be read back with.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {snapshot(key): snapshot(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(held) for held in value)
    for kind in PLAIN:
        if isinstance(value, kind):  # numpy's float64 is a float, but would be pickled as what it is
            return kind(value)
    if value is None:
        return None
    raise CheckpointMismatch(
        f"a {type(value).__name__} cannot be kept in a checkpoint",
        where="the state of the optimizer or of a callback",
        cure="keep tensors, numbers, strings, lists and dictionaries",
    )
