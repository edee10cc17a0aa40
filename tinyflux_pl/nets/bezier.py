"""Bezier activations: five channels to one value on a cubic curve, and a learned curve a channel.

FluxFlow's units. Both keep only their input for the backward pass: 5 and 1 times the output's size.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.nets import bezier_formula
from tinyflux_pl.nets.bezier_formula import bernstein, check_pre_activation, curve, slope

FAN = 5  # channels of one value: t, p0, p1, p2, p3


class _Activation(torch.autograd.Function):
    """Rows (R, 5, J) -> (R, J); the backward pass recomputes from the rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, t_pre: str | None, p_pre: str | None) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.pre = (t_pre, p_pre)
        return bezier_formula.implementation(rows)[0](rows, t_pre, p_pre)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        # a second derivative is asked for only while gradients of gradients are recorded
        again = torch.is_grad_enabled()
        backward = bezier_formula.backward_rows if again else bezier_formula.implementation(rows)[1]
        return backward(rows, gradient, *ctx.pre), None, None


class BezierActivation(nn.Module):
    """Channels C = 5F -> F on a cubic whose position t and four control points are the input's.

    The last dimension of 2-D and 3-D input, dimension 1 of larger ones. Value f reads channels 5f
    to 5f + 4, or with `planar` channels f, F + f, ..., 4F + f. `t_pre` and `p_pre`: None, sigmoid,
    tanh or silu of position and control points first.
    """

    def __init__(
        self, t_pre: str | None = "sigmoid", p_pre: str | None = None, planar: bool = False
    ) -> None:
        super().__init__()
        check_pre_activation(t_pre, "BezierActivation.t_pre")
        check_pre_activation(p_pre, "BezierActivation.p_pre")
        self.t_pre, self.p_pre, self.planar = t_pre, p_pre, planar

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The activation; ValueError unless 5 divides the channels."""
        dim = x.ndim - 1 if x.ndim < 4 else 1
        features, remainder = divmod(x.shape[dim], FAN)
        if remainder:
            raise ValueError(f"{x.shape[dim]} channels are not a multiple of {FAN}")
        shape = (*x.shape[:dim], features, *x.shape[dim + 1 :])
        inner = x.shape[dim + 1 :].numel()
        width = features * inner if self.planar else inner
        rows = x.contiguous().view(-1, FAN, width)
        return _Activation.apply(rows, self.t_pre, self.p_pre).view(shape)

    def extra_repr(self) -> str:
        """The settings."""
        return f"t_pre={self.t_pre}, p_pre={self.p_pre}, planar={self.planar}"


class _LearnedCurve(torch.autograd.Function):
    """B(sigmoid(x)) with control points that broadcast to x; only x is kept at its full size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *points: Tensor) -> Tensor:
        ctx.save_for_backward(x, *points)
        wide = torch.promote_types(x.dtype, torch.float32)
        return curve(x.to(wide).sigmoid(), *(point.to(wide) for point in points)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        x, *points = ctx.saved_tensors
        wide = torch.promote_types(x.dtype, torch.float32)
        t, gradient = x.to(wide).sigmoid(), gradient.to(wide)
        of_x = gradient * slope(t, *(point.to(wide) for point in points)) * t * (1.0 - t)
        of_points = (
            (gradient * weight).sum_to_size(point.shape).to(point.dtype)
            for weight, point in zip(bernstein(t), points, strict=True)
        )
        return of_x.to(x.dtype), *of_points


class TrainableBezier(nn.Module):
    """B(sigmoid(x)) with four learned control points for each element of `shape`.

    `channels`: (C,) points, one set a channel of (B, C, H, W). `start`: the points' first values.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        start: tuple[float, float, float, float] = (1e-8, 0.25, 0.75, 1.0),
        channels: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.p0, self.p1, self.p2, self.p3 = (
            nn.Parameter(torch.full(shape, float(value))) for value in start
        )

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The curve of every element."""
        points = (self.p0, self.p1, self.p2, self.p3)
        if self.channels:
            points = tuple(point.view(1, -1, 1, 1) for point in points)
        return _LearnedCurve.apply(x, *points)


# First control points of FluxFlow's bottleneck and picture. The published ones of the picture,
# (-1, 0.25, 0.75, 1), are no line: grey would become 0.375.
MEAN_START = (-2.0, -0.5, 0.5, 2.0)
LOG_VARIANCE_START = (-3.0, -1.0, 1.0, 3.0)
PICTURE_START = (-1.0, -1 / 3, 1 / 3, 1.0)
REFERENCE_PICTURE_START = (-1.0, 0.25, 0.75, 1.0)
