"""Convolutions with Bezier activations that halve or double a map's sides, and a token block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.nets.attention import attend
from tinyflux_pl.nets.bezier import FAN, BezierActivation
from tinyflux_pl.nets.fluxflow.spade import Spade

SPADE_GROUP = 4  # channels of a group of SPADE's norm, as published at width 128
SKIP = 0.1  # of the enlarged input, added to each stage's output, as published


def activation(p_pre: str | None = "silu") -> BezierActivation:
    """sigmoid on t; planar, so that each of a value's five inputs is one plane of memory."""
    return BezierActivation("sigmoid", p_pre, planar=True)


def norm(channels: int) -> nn.GroupNorm:
    """Norm after an activation: without it each shrinks its input to about a quarter, and a
    picture's signal is gone before the bottleneck. One group, or flat colours would be lost.
    """
    return nn.GroupNorm(1, channels)


class DownStage(nn.Module):
    """(B, C, H, W) -> (B, O, H/2, W/2): a 3 x 3 convolution, then one of stride 2, each to a Bezier
    activation and a norm.
    """

    def __init__(self, channels: int, out: int, kernel: int = 4) -> None:
        super().__init__()
        self.refine = nn.Conv2d(channels, FAN * out, 3, padding=1)
        self.down = nn.Conv2d(out, FAN * out, kernel, stride=2, padding=(kernel - 2) // 2)
        self.activation = activation()
        self.norms = nn.ModuleList((norm(out), norm(out)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        """Features at half the sides."""
        x = self.norms[0](self.activation(self.refine(x)))
        return self.norms[1](self.activation(self.down(x)))


class UpStage(nn.Module):
    """(B, C, H, W) and a context map -> (B, O, 2H, 2W): SPADE, a transposed convolution, a 3 x 3
    one.
    """

    def __init__(
        self, channels: int, out: int, context: int, spade_hidden: int, kernel: int = 4
    ) -> None:
        super().__init__()
        self.spade = Spade(channels, context, spade_hidden, max(1, channels // SPADE_GROUP))
        padding = (kernel - 2) // 2
        self.up = nn.ConvTranspose2d(channels, FAN * out, kernel, stride=2, padding=padding)
        self.refine = nn.Conv2d(out, FAN * out, 3, padding=1)
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        self.activation = activation()
        self.norms = nn.ModuleList((norm(out), norm(out)))

    def forward(self, x: Float[Tensor, "b c h w"], context: Tensor) -> Float[Tensor, "b o h2 w2"]:
        """Features at twice the sides."""
        large = self.norms[0](self.activation(self.up(self.spade(x, context))))
        large = self.norms[1](self.activation(self.refine(large)))
        return large + SKIP * F.interpolate(self.skip(x), scale_factor=2.0, mode="nearest")


class TokenBlock(nn.Module):
    """Self-attention and a Bezier feed-forward network over a map's cells, each after a norm."""

    def __init__(self, width: int, heads: int, ff_mult: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        hidden = width * ff_mult
        self.ff = nn.Sequential(
            nn.Linear(width, FAN * hidden), activation(), nn.Linear(hidden, width)
        )

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Both residual branches."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        x = x + self.out(attend(query, key, value))
        return x + self.ff(self.norm2(x))


def tokens_of(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
    """The cells of a map, row by row."""
    return x.flatten(2).transpose(1, 2)


def map_of(tokens: Float[Tensor, "b n c"], size: torch.Size) -> Float[Tensor, "b c h w"]:
    """The inverse of `tokens_of`."""
    return tokens.transpose(1, 2).unflatten(2, tuple(size))
