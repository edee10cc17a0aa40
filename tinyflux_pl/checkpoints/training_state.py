"""`state.pt` of a checkpoint: tensors and plain types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.checkpoints.manifest import CURE
from tinyflux_pl.core.errors import CorruptCheckpoint
from tinyflux_pl.core.torch_archive import read_archive

RESUME_CURE = "resume your own runs only"


def read(path: Path) -> dict[str, Any]:
    """Read tensors and plain types, of at most as many bytes as the file has.

    Raises UntrustedFile for a file that needs more than that, CorruptCheckpoint for one that is
    truncated or not a training state.
    """
    where, name = str(path), path.name
    state = read_archive(path, CorruptCheckpoint, CURE, RESUME_CURE)
    counts = ("step", "average_updates")
    if not isinstance(state, dict) or not {"step", "optimizer"} <= state.keys():
        raise CorruptCheckpoint(f"{name} is not a training state", where=where, cure=CURE)
    if any(type(state.get(key, 0)) is not int or state.get(key, 0) < 0 for key in counts):
        raise CorruptCheckpoint(f"{name} holds no number of steps", where=where, cure=CURE)
    if not isinstance(state["optimizer"], dict) or not isinstance(state.get("callbacks", {}), dict):
        raise CorruptCheckpoint(f"{name} is not a training state", where=where, cure=CURE)
    return state


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise CorruptCheckpoint naming the first floating-point tensor with a non-finite value."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise CorruptCheckpoint(f"{name} is not finite", where=where, cure=CURE)
