"""Count the memory of a step on the meta device, without computing values."""

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
from tinyflux_pl.engine.attention_arguments import attention_arguments
from tinyflux_pl.engine.live_bytes import LiveBytes
from tinyflux_pl.nets import packed_product

# Autocast's lists, as far as the networks here use them; it has none for the meta device.
LOWER = {
    F.linear,
    packed_product.product,
    F.conv1d,
    F.conv2d,
    torch.matmul,
    torch.bmm,
    torch.baddbmm,
    torch.addmm,
    torch.einsum,
}
LOWER |= {Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.baddbmm, torch.conv2d, torch.conv1d}
# Samples of the smaller count: with a single one, some tensors are views that are copies otherwise.
FIRST = 2
SINGLE = {F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax}


class FusedAttentionFunction(torch.autograd.Function):
    """Attention that saves for backward what fused kernels save.

    Inputs, output and one number per row.
    """

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
    """Inside, operations run in the dtypes of mixed precision, and attention is fused."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        self.dtype = DTYPES.get(precision)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Cast the arguments as autocast does, and compute."""
        kwargs = kwargs or {}
        attends = func is F.scaled_dot_product_attention
        if self.dtype is not None and (attends or func in LOWER):
            args, kwargs = tree_map(self._lower, (args, kwargs))
        elif self.dtype is not None and func in SINGLE:
            args, kwargs = tree_map(_single, (args, kwargs))
        if not attends:
            return func(*args, **kwargs)
        query, key, value, _mask = attention_arguments(*args, **kwargs)
        return FusedAttentionFunction.apply(query, key, value)

    def _lower(self, leaf: Any) -> Any:
        return leaf.to(self.dtype) if _wide(leaf) else leaf


def _wide(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype == torch.float32


def _single(leaf: Any) -> Any:
    return leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


@dataclass(frozen=True)
class Linear:
    """Peak bytes at FIRST samples and at one more, extrapolated linearly."""

    first: int
    second: int

    def at(self, samples: int) -> int:
        """Peak bytes with `samples` samples."""
        return max(0, self.first + (self.second - self.first) * (samples - FIRST))


def step(module: nn.Module, loss: Callable[[int], Tensor], precision: str) -> Linear:
    """Peak bytes of forward and backward pass, without weights, gradients and optimizer state.

    `loss(samples)` is the module's loss on the meta device. Gradients are allocated already, as in
    every micro-batch but the first.
    """
    for parameter in module.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None

    def work(samples: int) -> None:
        with Mixed(precision):
            value = loss(samples)
            # Not Tensor.backward, which leaves the mode: recomputed blocks would be in fp32.
            _engine_run_backward(
                (value,),
                (torch.ones_like(value),),
                False,
                False,
                (),
                allow_unreachable=True,
                accumulate_grad=True,
            )

    return _counted(module, work)


def forward(module: nn.Module, evaluate: Callable[[int], Any], precision: str) -> Linear:
    """Peak bytes of `evaluate(samples)` without gradients."""

    def work(samples: int) -> None:
        with torch.inference_mode(), Mixed(precision):
            evaluate(samples)

    return _counted(module, work)


def _counted(module: nn.Module, work: Callable[[int], Any]) -> Linear:
    """Peak bytes of `work(samples)`, extrapolated from equal blocks cut to one and two.

    A first pass is counted alone: what it keeps for later ones, such as the null text on the
    device, would be in one of the counts whose differences are extrapolated, and not in the others.
    """
    groups = _equal_blocks(module)
    retained = _run(groups, {}, lambda: work(FIRST)).live
    first, second = (_at_full_depth(groups, lambda n=n: work(n)) for n in (FIRST, FIRST + 1))
    return Linear(first + retained, second + retained)


def _at_full_depth(groups: list[list[nn.ModuleList]], work: Callable[[], Any]) -> int:
    """Peak bytes, extrapolated from lists of equal blocks cut to one and to two blocks."""

    def peak(num_blocks: dict[int, int]) -> int:
        return max((live for _, live in _run(groups, num_blocks, work).history), default=0)

    base = peak({})
    more = (peak({number: 2}) - base for number in range(len(groups)))
    return base + sum(each * (len(lists[0]) - 1) for each, lists in zip(more, groups, strict=True))


def _run(
    groups: list[list[nn.ModuleList]], num_blocks: dict[int, int], work: Callable[[], Any]
) -> LiveBytes:
    """Count `work` with the lists of one group cut to `num_blocks`, the others to one."""
    with ExitStack() as stack:
        for number, lists in enumerate(groups):
            for blocks in lists:
                stack.enter_context(_shortened(blocks, num_blocks.get(number, 1)))
        count = stack.enter_context(LiveBytes("meta"))
        work()
    return count


def _equal_blocks(module: nn.Module) -> list[list[nn.ModuleList]]:
    """Lists of three or more equal blocks, grouped by kind of block and length."""
    groups: dict[Any, list[nn.ModuleList]] = {}
    for blocks in module.modules():
        if isinstance(blocks, nn.ModuleList) and len(blocks) > 2:
            kinds = {_kind(block) for block in blocks}
            if len(kinds) == 1 and (kind := kinds.pop())[1]:
                groups.setdefault((kind, len(blocks)), []).append(blocks)
    return list(groups.values())


def _kind(block: nn.Module) -> tuple[Any, ...]:
    shapes = tuple((name, tuple(parameter.shape)) for name, parameter in block.named_parameters())
    return type(block), shapes


@contextmanager
def _shortened(blocks: nn.ModuleList, count: int) -> Iterator[None]:
    """Cut a list to its first blocks inside the context."""
    modules = dict(blocks._modules)
    for name in list(modules)[count:]:
        del blocks._modules[name]
    try:
        yield
    finally:
        blocks._modules.update(modules)
