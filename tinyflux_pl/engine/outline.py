"""A step on the meta device that has alive what a step on an accelerator has: no value is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from tinyflux_pl.core.precision import DTYPES
from tinyflux_pl.engine.live_bytes import LiveBytes

# Autocast's lists, as far as the networks here use them; it has none for the meta device.
LOWER = {F.linear, F.conv1d, F.conv2d, torch.matmul, torch.bmm, torch.baddbmm, torch.addmm, torch.einsum}
LOWER |= {Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.baddbmm, torch.conv2d, torch.conv1d}
FIRST = 2  # samples of the smaller count: with one alone some tensors are views that are copies with more
SINGLE = {F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax}


class FusedAttention(torch.autograd.Function):
    """Attention as fused kernels keep it for the backward pass: inputs, answer and one number a row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        answer = query.new_empty(*query.shape[:-1], value.shape[-1])
        rows = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, answer, rows)
        return answer

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class Mixed(TorchFunctionMode):
    """Inside, products are made in the type that a mixed precision makes them in, and attention is fused."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        self.dtype = DTYPES.get(precision)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Cast the arguments as autocast does, and compute."""
        kwargs = kwargs or {}
        attends = func is F.scaled_dot_product_attention
        if self.dtype is not None and (attends or func in LOWER):
            args, kwargs = tree_map(self._lower, (args, kwargs))
        elif self.dtype is not None and func in SINGLE:
            args, kwargs = tree_map(_single, (args, kwargs))
        if not attends:
            return func(*args, **kwargs)
        given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
        mask = given.get("attn_mask")
        if mask is not None and mask.dtype == torch.bool:
            mask = mask.to(given["query"].dtype)  # as torch hands it to its kernels
        return FusedAttention.apply(given["query"], given["key"], given["value"])

    def _lower(self, leaf: Any) -> Any:
        return leaf.to(self.dtype) if _wide(leaf) else leaf


def _wide(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype == torch.float32


def _single(leaf: Any) -> Any:
    return leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


@dataclass(frozen=True)
class Linear:
    """The most bytes alive at FIRST samples and at one more: what work with more of them takes."""

    first: int
    second: int

    def at(self, samples: int) -> int:
        """The most bytes alive at once with so many samples."""
        return max(0, self.first + (self.second - self.first) * (samples - FIRST))


def step(module: nn.Module, loss: Callable[[int], Tensor], precision: str) -> Linear:
    """Bytes that forward and backward pass have alive beside weights, gradients and the optimizer's state.

    `loss` of so many samples is that of the module, on the meta device. Gradients are there already, as in
    every micro-batch but the first.
    """
    for parameter in module.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None

    def work(samples: int) -> None:
        with Mixed(precision):
            value = loss(samples)
            # What Tensor.backward calls; that itself would leave the mode, and what is computed again be in fp32.
            _engine_run_backward(
                (value,), (torch.ones_like(value),), False, False, (), allow_unreachable=True, accumulate_grad=True
            )

    return Linear(*(_at_full_depth(module, lambda n=n: work(n)) for n in (FIRST, FIRST + 1)))


def forward(module: nn.Module, evaluate: Callable[[int], Any], precision: str) -> Linear:
    """Bytes that an evaluation of so many samples without gradients has alive."""

    def work(samples: int) -> None:
        with torch.inference_mode(), Mixed(precision):
            evaluate(samples)

    return Linear(*(_at_full_depth(module, lambda n=n: work(n)) for n in (FIRST, FIRST + 1)))


def _at_full_depth(module: nn.Module, work: Callable[[], Any]) -> int:
    """The most bytes alive, from runs of equal blocks cut to one and to two: a count of all takes too long."""
    groups = _equal_blocks(module)

    def peak(kept: dict[int, int]) -> int:
        with ExitStack() as inside:
            for number, lists in enumerate(groups):
                for blocks in lists:
                    inside.enter_context(_shortened(blocks, kept.get(number, 1)))
            live = inside.enter_context(LiveBytes("meta"))
            work()
        return max((held for _, held in live.history), default=0)

    base = peak({})
    more = (peak({number: 2}) - base for number in range(len(groups)))
    return base + sum(each * (len(lists[0]) - 1) for each, lists in zip(more, groups, strict=True))


def _equal_blocks(module: nn.Module) -> list[list[nn.ModuleList]]:
    """Lists of three or more blocks with the same parameters, those of one kind and length together."""
    found: dict[Any, list[nn.ModuleList]] = {}
    for blocks in module.modules():
        if isinstance(blocks, nn.ModuleList) and len(blocks) > 2:
            kinds = {_kind(block) for block in blocks}
            if len(kinds) == 1 and (kind := kinds.pop())[1]:
                found.setdefault((kind, len(blocks)), []).append(blocks)
    return list(found.values())


def _kind(block: nn.Module) -> tuple[Any, ...]:
    shapes = tuple((name, tuple(parameter.shape)) for name, parameter in block.named_parameters())
    return type(block), shapes


@contextmanager
def _shortened(blocks: nn.ModuleList, count: int) -> Iterator[None]:
    """Only the first blocks of a list, inside."""
    whole = dict(blocks._modules)
    for name in list(whole)[count:]:
        del blocks._modules[name]
    try:
        yield
    finally:
        blocks._modules.update(whole)
