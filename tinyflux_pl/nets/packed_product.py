"""y = x W^T + b with a frozen packed W, which is dequantized in forward and backward pass."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

Stored = tuple[Tensor, ...]


@runtime_checkable
class Packed(Protocol):
    """Dequantizes a weight from the tensors that hold it."""

    def values(self, stored: Stored, dtype: torch.dtype) -> Float[Tensor, "n k"]:
        """The weight in `dtype`, but for the scales of its output channels."""
        ...

    def scale(self, stored: Stored) -> Float[Tensor, " n"] | None:
        """Scales of output channels that multiply the product; None if `values` have them."""
        ...


def product(
    x: Float[Tensor, "*b k"], stored: Stored, bias: Tensor | None, packed: Packed
) -> Float[Tensor, "*b n"]:
    """x W^T + b in the dtype of x; a gradient reaches x alone.

    The weight's values are not kept for the way back: they are multiplied out again.
    """
    if has_torch_function_unary(x):  # a plan of mixed precision, which counts without values
        return handle_torch_function(product, (x,), x, stored, bias, packed)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Product.apply(x, bias, packed, *stored)
    return _product(x, stored, bias, packed)


def autocast(x: Tensor) -> Tensor:
    """x in the dtype of autocast where that is on, as F.linear would take it."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    return x


def scaled(
    product: Float[Tensor, "*b n"],
    scale: Float[Tensor, " n"],
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Float[Tensor, "*b n"]:
    """product * scale + bias, in fp32 inside."""
    # in fp32: the product of levels up to 448 exceeds float16; in place: it is the largest tensor
    answer = product.float().mul_(scale)
    if bias is not None:
        answer.add_(bias.float())
    return answer.to(dtype)


class _Product(torch.autograd.Function):
    """x W^T + b, and the gradient of x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, packed: Packed, *stored: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*stored)
        ctx.packed = packed
        return _product(x, stored, bias, packed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        stored, dtype = ctx.saved_tensors, gradient.dtype
        scale = ctx.packed.scale(stored)
        if scale is not None:
            gradient = (gradient.float() * scale).to(dtype)
        back = gradient @ ctx.packed.values(stored, dtype)
        return back, None, None, *(None for _ in stored)


def _product(x: Tensor, stored: Stored, bias: Tensor | None, packed: Packed) -> Tensor:
    values, scale = packed.values(stored, x.dtype), packed.scale(stored)
    if scale is not None and x.dtype != torch.float16:  # whose range ends at 65504
        return scaled(F.linear(x, values), scale, bias, x.dtype)
    weight = values if scale is None else values * scale.to(x.dtype)[:, None]
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))
