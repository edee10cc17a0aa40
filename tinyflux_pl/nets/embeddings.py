"""Scalars as vectors: sinusoids and the small network behind them."""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn


def sinusoid(
    value: Float[Tensor, " b"],
    dim: int = 256,
    scale: float = 1000.0,
    sin_first: bool = True,
    last_frequency_included: bool = True,
    max_period: float = 10000.0,
) -> Float[Tensor, "b dim"]:
    """sin and cos of scale * value * max_period^(-k/K), fp32.

    K is dim/2 - 1 (the slowest frequency is 1/max_period, TinyFlux) or dim/2 (Flux), `sin_first`
    likewise.
    """
    half = dim // 2
    steps = torch.arange(half, device=value.device, dtype=torch.float32)
    rate = torch.exp(
        -math.log(max_period) * steps / (half - 1 if last_frequency_included else half)
    )
    angle = scale * value.float()[:, None] * rate
    pair = (angle.sin(), angle.cos()) if sin_first else (angle.cos(), angle.sin())
    return torch.cat(pair, -1)


class ScalarEmbedder(nn.Module):
    """A scalar (B,) -> sinusoid -> Linear, SiLU, Linear -> (B, D)."""

    def __init__(self, hidden: int, scale: float, dim: int = 256) -> None:
        super().__init__()
        self.scale, self.dim = scale, dim
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, value: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """The embedding; its sinusoid is fp32 before it meets the weights."""
        first = cast(nn.Linear, self.mlp[0])
        return self.mlp(sinusoid(value, self.dim, self.scale).to(first.weight.dtype))


def pool_text(tokens: Float[Tensor, "b l d"], mask: Tensor | None = None) -> Float[Tensor, "b d"]:
    """Tokens averaged with softmax weights of their own channel means; padding has weight 0."""
    scores = tokens.float().mean(-1)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1)
    if mask is not None:  # a row that is all padding would otherwise average it
        weights = weights * mask
    return (tokens * weights[..., None].to(tokens.dtype)).sum(1)
