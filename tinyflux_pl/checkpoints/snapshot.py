"""Copy a training state to the host, so that training continues while it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tinyflux_pl.core.errors import CheckpointMismatch

PLAIN = (bool, int, float, str)


def snapshot(value: Any) -> Any:
    """Copy `value` with all tensors on the CPU, using only plain containers and plain types.

    Raises CheckpointMismatch for a type that could not be read back from a checkpoint.
    """
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {snapshot(key): snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(item) for item in value)
    for kind in PLAIN:
        if isinstance(value, kind):  # numpy's float64 is a float, but would be pickled as numpy's
            return kind(value)
    if value is None:
        return None
    raise CheckpointMismatch(
        f"a {type(value).__name__} cannot be stored in a checkpoint",
        where="the state of the optimizer or of a callback",
        cure="store tensors, numbers, strings, lists and dictionaries",
    )
