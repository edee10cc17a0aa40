"""Stages with Bezier or other activations that halve or double a map's sides, and a token block."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tinyflux_pl.nets.attention import attend
from tinyflux_pl.nets.fluxflow.activations import FANS, activation
from tinyflux_pl.nets.fluxflow.spade import Spade

SPADE_GROUP = 4  # channels of a group of SPADE's norm, as published at width 128
DOWN_GAIN = 0.5  # of the shortcut's orthogonal weights: a flat colour keeps its size


def norm(channels: int) -> nn.GroupNorm:
    """Norm of what a branch reads, over one group.

    The stream itself is never normalised: a norm takes the size of differences between colours.
    """
    return nn.GroupNorm(1, channels)


def linear_shortcut(channels: int, out: int, gain: float) -> nn.Conv2d:
    """A 1 x 1 convolution with orthogonal weights, lossless if there are enough channels.

    Without it the colours of a picture have to pass every activation on their way to the latents
    and back, and are learned late or never; with it an autoencoder starts near the linear one.
    """
    layer = nn.Conv2d(channels, out, 1)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class DownStage(nn.Module):
    """(B, C, H, W) -> (B, O, H/2, W/2): a linear shortcut and two branches.

    Each 2 x 2 square is folded into channels and projected; a branch is a norm, a convolution and
    an activation. Space-to-depth shortcuts as in DC-AE (Chen et al. 2024, 2410.10733), with learned
    weights.
    """

    def __init__(
        self, channels: int, out: int, kernel: int = 4, activation_name: str = "bezier"
    ) -> None:
        super().__init__()
        fan = FANS[activation_name]
        self.shortcut = linear_shortcut(4 * channels, out, DOWN_GAIN)
        self.norms = nn.ModuleList((norm(channels), norm(out)))
        self.down = nn.Conv2d(channels, fan * out, kernel, stride=2, padding=(kernel - 2) // 2)
        self.refine = nn.Conv2d(out, fan * out, 3, padding=1)
        self.activation = activation(activation_name)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        """Features at half the sides."""
        folded = self.shortcut(F.pixel_unshuffle(x, 2))
        x = folded + self.activation(self.down(self.norms[0](x)))
        return x + self.activation(self.refine(self.norms[1](x)))


class UpStage(nn.Module):
    """(B, C, H, W) and a context map -> (B, O, 2H, 2W): a linear shortcut and two branches.

    Each cell is projected and unfolded to 2 x 2; the branches are SPADE with a transposed
    convolution, and a norm with a 3 x 3 one.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        context: int,
        spade_hidden: int,
        kernel: int = 4,
        activation_name: str = "bezier",
    ) -> None:
        super().__init__()
        fan = FANS[activation_name]
        gain = math.sqrt(max(1.0, 4 * out / channels))  # values keep their size
        self.shortcut = linear_shortcut(channels, 4 * out, gain)
        self.spade = Spade(channels, context, spade_hidden, max(1, channels // SPADE_GROUP))
        padding = (kernel - 2) // 2
        self.up = nn.ConvTranspose2d(channels, fan * out, kernel, stride=2, padding=padding)
        self.norm = norm(out)
        self.refine = nn.Conv2d(out, fan * out, 3, padding=1)
        self.activation = activation(activation_name)

    def forward(self, x: Float[Tensor, "b c h w"], context: Tensor) -> Float[Tensor, "b o h2 w2"]:
        """Features at twice the sides."""
        unfolded = F.pixel_shuffle(self.shortcut(x), 2)
        x = unfolded + self.activation(self.up(self.spade(x, context)))
        return x + self.activation(self.refine(self.norm(x)))


class TokenBlock(nn.Module):
    """Self-attention and a feed-forward network over tokens, each after a norm."""

    def __init__(
        self, width: int, heads: int, ff_mult: int, activation_name: str = "bezier"
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        hidden = width * ff_mult
        self.ff = nn.Sequential(
            nn.Linear(width, FANS[activation_name] * hidden),
            activation(activation_name),
            nn.Linear(hidden, width),
        )

    def forward(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Both residual branches; tokens outside the mask are not attended to."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        attended = None if mask is None else mask[:, None, None]
        x = x + self.out(attend(query, key, value, attended))
        return x + self.ff(self.norm2(x))


def tokens_of(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
    """The cells of a map, row by row."""
    return x.flatten(2).transpose(1, 2)


def map_of(tokens: Float[Tensor, "b n c"], size: torch.Size) -> Float[Tensor, "b c h w"]:
    """The inverse of `tokens_of`."""
    return tokens.transpose(1, 2).unflatten(2, tuple(size))
