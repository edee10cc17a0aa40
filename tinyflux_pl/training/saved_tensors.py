"""The tensors of a network that a run's checkpoints contain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def saved_tensors(module: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state dict that the module's method saves: all but frozen base weights."""
    names = module.method.saved(module.network)
    return {name: tensor for name, tensor in tensors.items() if name in names}
