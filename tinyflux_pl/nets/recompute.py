"""Gradient checkpointing: only a block's inputs are kept, and its activations recomputed."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def recomputed(block: nn.Module, *inputs: Any) -> Any:
    """The output of the block, computed again in the backward pass.

    The generator's state is kept only where a dropout reads it: an adapter may bring one.
    """
    dropout = any(isinstance(module, nn.Dropout) and module.p for module in block.modules())
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=dropout)
