"""The cubic Bezier activation as a formula, its derivative, and the choice of an implementation.

Rows (R, 5, J) hold t, p0, p1, p2, p3: B = u^3 p0 + 3 u^2 t p1 + 3 u t^2 p2 + t^3 p3, u = 1 - t.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError

log = logging.getLogger(__name__)
PRE_ACTIVATIONS = (None, "sigmoid", "tanh", "silu")
# Elements from which compiling pays in a run: it takes seconds once, for each kind of row.
COMPILED_FROM = 2**18


def check_pre_activation(name: str | None, where: str) -> None:
    """Raise ConfigError for a pre-activation that does not exist."""
    if name not in PRE_ACTIVATIONS:
        choices = ", ".join(str(each) for each in PRE_ACTIVATIONS)
        raise ConfigError(f"unknown pre-activation {name!r}", where=where, cure=f"choose {choices}")


def pre_activate(name: str | None, x: Tensor) -> Tensor:
    """x, sigmoid(x), tanh(x) or silu(x)."""
    if name == "sigmoid":
        return x.sigmoid()
    if name == "tanh":
        return x.tanh()
    return x * x.sigmoid() if name == "silu" else x


def pre_activation_slope(name: str | None, x: Tensor) -> Tensor | float:
    """The derivative of `pre_activate` at x."""
    if name == "sigmoid":
        s = x.sigmoid()
        return s * (1.0 - s)
    if name == "tanh":
        return 1.0 - x.tanh().square()
    if name == "silu":
        s = x.sigmoid()
        return s * (1.0 + x * (1.0 - s))
    return 1.0


def bernstein(t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four cubic Bernstein polynomials at t."""
    u = 1 - t
    return u * u * u, 3 * u * u * t, 3 * u * t * t, t * t * t


def slope(t: Tensor, p0: Tensor, p1: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
    """dB / dt."""
    u = 1 - t
    return 3 * (u * u * (p1 - p0) + 2 * u * t * (p2 - p1) + t * t * (p3 - p2))


def curve(t: Tensor, p0: Tensor, p1: Tensor, p2: Tensor, p3: Tensor) -> Tensor:
    """B(t)."""
    b0, b1, b2, b3 = bernstein(t)
    return b0 * p0 + b1 * p1 + b2 * p2 + b3 * p3


def forward_rows(
    rows: Float[Tensor, "r 5 j"], t_pre: str | None, p_pre: str | None
) -> Float[Tensor, "r j"]:
    """The activation, computed in fp32 or wider, in the dtype of its rows."""
    t, *points = rows.to(torch.promote_types(rows.dtype, torch.float32)).unbind(1)
    p0, p1, p2, p3 = (pre_activate(p_pre, point) for point in points)
    return curve(pre_activate(t_pre, t), p0, p1, p2, p3).to(rows.dtype)


def backward_rows(
    rows: Float[Tensor, "r 5 j"],
    gradient: Float[Tensor, "r j"],
    t_pre: str | None,
    p_pre: str | None,
) -> Float[Tensor, "r 5 j"]:
    """The gradient of the rows, from the rows alone: nothing else is kept from the forward pass."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    raw, *points = rows.to(wide).unbind(1)
    gradient = gradient.to(wide)
    t = pre_activate(t_pre, raw)
    p0, p1, p2, p3 = (pre_activate(p_pre, point) for point in points)
    of_t = gradient * slope(t, p0, p1, p2, p3) * pre_activation_slope(t_pre, raw)
    of_points = [
        gradient * weight * pre_activation_slope(p_pre, point)
        for weight, point in zip(bernstein(t), points, strict=True)
    ]
    return torch.stack((of_t, *of_points), 1).to(rows.dtype)


def cpp_compiler() -> str | None:
    """The C++ compiler that torch.compile would call on a CPU; None: there is none."""
    names = (os.environ.get("CXX"), "g++", "clang++", "c++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@functools.cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function through torch.compile; where compilation fails it is called as it is."""
    if cpp_compiler() is None:
        return function
    fast = torch.compile(function, dynamic=True)
    failed = False

    def call(*arguments: Tensor | str | None) -> Tensor:
        nonlocal failed
        if not failed:
            try:
                return fast(*arguments)
            except Exception as error:  # headers or a linker may be missing, in any of many ways
                failed = True
                log.warning("Bezier activations run uncompiled: %s", str(error).splitlines()[0])
        return function(*arguments)

    return call


def implementation(rows: Tensor) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The (forward, backward) implementation for these rows.

    Triton on a GPU that has it, compiled code for large inputs on a CPU, else the formula.
    """
    if rows.is_cuda:
        from tinyflux_pl.nets import bezier_triton

        if bezier_triton.AVAILABLE and rows.dtype != torch.float64:
            return bezier_triton.forward_rows, bezier_triton.backward_rows
    large = rows.numel() >= COMPILED_FROM
    if rows.device.type == "cpu" and large and not torch.compiler.is_compiling():
        return compiled(forward_rows), compiled(backward_rows)
    return forward_rows, backward_rows
