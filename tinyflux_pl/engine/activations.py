"""Memory of a forward pass besides the weights, counted on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tinyflux_pl.engine.attention_arguments import attention_arguments
from tinyflux_pl.engine.block_replay import replayed
from tinyflux_pl.engine.live_bytes import LiveBytes, Moment


class FusedAttentionMode(TorchFunctionMode):
    """Inside, attention allocates its output alone, as fused kernels do.

    On meta torch would use others.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace scaled_dot_product_attention, run anything else."""
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, _, value, _mask = attention_arguments(*args, **(kwargs or {}))
        return query.new_empty(*query.shape[:-1], value.shape[-1])


class PaddedMasks(TorchFunctionMode):
    """Inside, bool() of a meta tensor is False, so that no mask counts as all True.

    Text encoders of transformers build no attention mask for prompts without padding.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer bool() of a tensor on the meta device, run anything else."""
        if func is torch.Tensor.__bool__ and args[0].is_meta:
            return False
        return func(*args, **(kwargs or {}))


def activations(work: Callable[[], Any], *networks: nn.Module) -> int:
    """Peak bytes of `work` on the meta device; equal blocks of `networks` are counted once."""
    return max((live for _, live in history(work, *networks)), default=0)


def history(work: Callable[[], Any], *networks: nn.Module) -> list[Moment]:
    """The memory history of `work` on the meta device, with fused attention."""
    count = LiveBytes()
    with torch.inference_mode(), FusedAttentionMode(), count, replayed(count, networks):
        work()
    return count.history
