"""The Bezier activation as two Triton kernels: one read of each input, one write of each output.

Not tested on a GPU yet: `python -m benchmarks bezier` compares them there with the formula.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

try:
    import triton
    import triton.language as tl

    AVAILABLE = True
except ImportError:
    AVAILABLE = False

BLOCK = 1024
CODES = {None: 0, "sigmoid": 1, "tanh": 2, "silu": 3}

if AVAILABLE:

    @triton.jit
    def _activate(x, KIND: tl.constexpr):
        s = tl.sigmoid(x)
        if KIND == 1:
            return s
        if KIND == 2:
            return 2 * tl.sigmoid(2 * x) - 1
        if KIND == 3:
            return x * s
        return x

    @triton.jit
    def _slope(x, KIND: tl.constexpr):
        s = tl.sigmoid(x)
        if KIND == 1:
            return s * (1 - s)
        if KIND == 2:
            h = 2 * tl.sigmoid(2 * x) - 1
            return 1 - h * h
        if KIND == 3:
            return s * (1 + x * (1 - s))
        return x * 0 + 1

    @triton.jit
    def _forward(rows, out, count, J, T: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
        index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = index < count
        base = rows + (index // J) * 5 * J + index % J
        t = _activate(tl.load(base, inside, 0).to(tl.float32), T)
        p0 = _activate(tl.load(base + J, inside, 0).to(tl.float32), P)
        p1 = _activate(tl.load(base + 2 * J, inside, 0).to(tl.float32), P)
        p2 = _activate(tl.load(base + 3 * J, inside, 0).to(tl.float32), P)
        p3 = _activate(tl.load(base + 4 * J, inside, 0).to(tl.float32), P)
        u = 1 - t
        value = u * u * u * p0 + 3 * u * u * t * p1 + 3 * u * t * t * p2 + t * t * t * p3
        tl.store(out + index, value, inside)

    @triton.jit
    def _backward(rows, grad, out, count, J, T: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):
        index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = index < count
        offset = (index // J) * 5 * J + index % J
        g = tl.load(grad + index, inside, 0).to(tl.float32)
        x = tl.load(rows + offset, inside, 0).to(tl.float32)
        x0 = tl.load(rows + offset + J, inside, 0).to(tl.float32)
        x1 = tl.load(rows + offset + 2 * J, inside, 0).to(tl.float32)
        x2 = tl.load(rows + offset + 3 * J, inside, 0).to(tl.float32)
        x3 = tl.load(rows + offset + 4 * J, inside, 0).to(tl.float32)
        t = _activate(x, T)
        u = 1 - t
        p0 = _activate(x0, P)
        p1 = _activate(x1, P)
        p2 = _activate(x2, P)
        p3 = _activate(x3, P)
        rate = 3 * (u * u * (p1 - p0) + 2 * u * t * (p2 - p1) + t * t * (p3 - p2))
        tl.store(out + offset, g * rate * _slope(x, T), inside)
        tl.store(out + offset + J, g * u * u * u * _slope(x0, P), inside)
        tl.store(out + offset + 2 * J, g * 3 * u * u * t * _slope(x1, P), inside)
        tl.store(out + offset + 3 * J, g * 3 * u * t * t * _slope(x2, P), inside)
        tl.store(out + offset + 4 * J, g * t * t * t * _slope(x3, P), inside)


def forward_rows(
    rows: Float[Tensor, "r 5 j"], t_pre: str | None, p_pre: str | None
) -> Float[Tensor, "r j"]:
    """bezier_formula.forward_rows on a GPU."""
    rows = rows.contiguous()
    out = rows.new_empty(rows.shape[0], rows.shape[2])
    grid = (triton.cdiv(out.numel(), BLOCK),)
    _forward[grid](rows, out, out.numel(), rows.shape[2], CODES[t_pre], CODES[p_pre], BLOCK)
    return out


def backward_rows(
    rows: Float[Tensor, "r 5 j"],
    gradient: Float[Tensor, "r j"],
    t_pre: str | None,
    p_pre: str | None,
) -> Float[Tensor, "r 5 j"]:
    """bezier_formula.backward_rows on a GPU; not differentiable again."""
    rows, gradient = rows.contiguous(), gradient.contiguous()
    out = torch.empty_like(rows)
    grid = (triton.cdiv(gradient.numel(), BLOCK),)
    codes = (CODES[t_pre], CODES[p_pre])
    _backward[grid](rows, gradient, out, gradient.numel(), rows.shape[2], *codes, BLOCK)
    return out
