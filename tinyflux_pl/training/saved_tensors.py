"""The tensors of a network that a run's checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def saved_tensors(module: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a state dict that the module's method saves: all but a base's frozen weights."""
    names = module.method.saved(module.network)
    return {name: tensor for name, tensor in tensors.items() if name in names}
