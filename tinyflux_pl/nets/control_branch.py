"""A control branch (ControlNet, Zhang et al. 2023): copies of the first blocks, which read a map.

What the copies answer is added to the streams of the frozen blocks through layers that begin at
zero, so that an untrained branch changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from tinyflux_pl.core.block_stack import StackBlock


class _FirstBlockReached(Exception):
    """Raised when the first block is called; `inputs` are its arguments by name."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        super().__init__()
        self.inputs = inputs


class ControlBranch(nn.Module):
    """A control branch beside `blocks` of one kind, whose streams all have `width` channels.

    `channels` are those of a token of the map. `is_last`: no block follows these, so that of the
    last one's answers only the image is read. The branch begins with the network's own embedded
    inputs, which it takes from the call of the first block. Its parameters are fp32 and train;
    `strength` multiplies what it adds. No other library has a layout for it.
    """

    layouts: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, blocks: Sequence[StackBlock], channels: int, width: int, is_last: bool
    ) -> None:
        super().__init__()
        first = blocks[0]
        self.streams, self.image = first.streams, first.image
        self.strength = 1.0
        self.gradient_checkpointing = False
        self.hint_in = zeroed(nn.Linear(channels, width))
        self.blocks = nn.ModuleList(deepcopy(block.module).float() for block in blocks)
        self.blocks.requires_grad_(True)
        self.outputs = nn.ModuleList()
        for number in range(1, len(blocks) + 1):
            read = (self.image,) if is_last and number == len(blocks) else self.streams
            self.outputs.append(
                nn.ModuleDict({name: zeroed(nn.Linear(width, width)) for name in read})
            )
        self._residuals: list[dict[str, Tensor]] = []  # kept for blocks that are computed again
        self._is_capturing = False
        first.module.register_forward_pre_hook(partial(self._reached, first), with_kwargs=True)
        for index, block in enumerate(blocks):
            block.module.register_forward_hook(partial(self._add, index))

    def guided(self, predict: Callable[[], Any], hint: Float[Tensor, "b n k"] | None) -> Any:
        """The output of `predict`, which calls the network, with the tokens of the map added.

        Without a map or at strength 0 it is that of the network alone.
        """
        self._residuals = []
        if hint is not None and self.strength != 0:
            self._residuals = self._computed(self._first_inputs(predict), hint)
        return predict()

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each block's input for the backward pass and compute the rest again."""
        self.gradient_checkpointing = True

    def _first_inputs(self, predict: Callable[[], Any]) -> dict[str, Any]:
        """The arguments of the first block; nothing before it trains, so no gradient is lost."""
        self._is_capturing = True
        try:
            with torch.no_grad():
                predict()
        except _FirstBlockReached as reached:
            return reached.inputs
        finally:
            self._is_capturing = False
        raise AssertionError("the network has called none of its blocks")

    def _reached(
        self, block: StackBlock, _: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        if self._is_capturing:
            inputs = block.inputs(args, keywords)
            del inputs["self"]
            raise _FirstBlockReached(inputs)

    def _computed(
        self, inputs: dict[str, Any], hint: Float[Tensor, "b n k"]
    ) -> list[dict[str, Tensor]]:
        """The terms that the branch adds to the streams, block by block."""
        inputs = tree_map(_single, inputs)
        embedded = self.hint_in(hint.to(self.hint_in.weight))
        inputs[self.image] = inputs[self.image] + embedded
        residuals = []
        for block, outputs in zip(self.blocks, self.outputs, strict=True):
            values = self._run(block, inputs)
            values = values if len(self.streams) > 1 else (values,)
            inputs |= dict(zip(self.streams, values, strict=True))
            answers = {name: layer(inputs[name]) for name, layer in outputs.items()}
            residuals.append({name: self.strength * answer for name, answer in answers.items()})
        return residuals

    def _run(self, block: nn.Module, inputs: dict[str, Any]) -> Any:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, use_reentrant=False, **inputs)
        return block(**inputs)

    def _add(self, index: int, _: nn.Module, __: Any, output: Any) -> Any:
        if index >= len(self._residuals):
            return output
        several, added = len(self.streams) > 1, self._residuals[index]
        values = zip(self.streams, output if several else (output,), strict=True)
        changed = tuple(
            value + added[name].to(value.dtype) if name in added else value
            for name, value in values
        )
        return changed if several else changed[0]


def zeroed(linear: nn.Linear) -> nn.Linear:
    """The layer with weights and bias of zero."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _single(leaf: Any) -> Any:
    return leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
