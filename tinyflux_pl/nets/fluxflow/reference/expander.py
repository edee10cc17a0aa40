"""The published decoder: tokens and their size token -> a picture, by SPADE."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.nets.bezier import REFERENCE_PICTURE_START, BezierActivation, TrainableBezier
from tinyflux_pl.nets.fluxflow.spade import Spade
from tinyflux_pl.nets.fluxflow.token_context import ContextAttentionMixer

SKIP = 0.1  # of the enlarged input, added to each stage's output


def _activation() -> BezierActivation:
    return BezierActivation("sigmoid", "silu")


class UpBlock(nn.Module):
    """One stage: SPADE, a transposed convolution that doubles the sides, a dilated convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spade = Spade(width, width)
        self.conv1 = nn.Sequential(
            nn.ConvTranspose2d(width, 5 * width, 16, stride=2, padding=7),
            _activation(),
            nn.Conv2d(width, 5 * width, 5, padding=4, dilation=2),
            _activation(),
        )

    def forward(
        self, x: Float[Tensor, "b d h w"], context: Tensor | None
    ) -> Float[Tensor, "b d h2 w2"]:
        """Features of twice the sides; None leaves SPADE out."""
        normed = x if context is None else self.spade(x, context)
        return self.conv1(normed) + SKIP * F.interpolate(x, scale_factor=2.0, mode="nearest")


class Upscaler(nn.Module):
    """The stages in order."""

    def __init__(self, width: int, upscales: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(UpBlock(width) for _ in range(upscales))

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Features at the picture's size."""
        for layer in self.layers:
            x = layer(x, context)
        return x


class FluxExpander(nn.Module):
    """Tokens (B, N + 1, D) -> pictures (B, 3, 16 h, 16 w).

    `context_mixer` has weights in published files and is never called.
    """

    def __init__(self, d_model: int = 128, upscales: int = 4, max_hw: int = 1024) -> None:
        super().__init__()
        self.max_hw = max_hw
        self.context_mixer = ContextAttentionMixer(d_model, 1)
        self.upscale = Upscaler(d_model, upscales)
        self.to_rgb_conv = nn.Sequential(
            nn.Conv2d(d_model, 96, 3, padding=1),
            nn.GroupNorm(8, 96),
            nn.SiLU(),
            nn.Conv2d(96, 48, 3, padding=1),
            nn.GroupNorm(8, 48),
            nn.SiLU(),
            nn.Conv2d(48, 3, 1),
        )
        self.rgb_activation = TrainableBezier((3,), REFERENCE_PICTURE_START, channels=True)

    def forward(
        self, packed: Float[Tensor, "b n d"], use_context: bool = True
    ) -> Float[Tensor, "b 3 h w"]:
        """Decode; the grid's size is read from the first sample's size token."""
        height, width = (round(float(v) * self.max_hw) for v in packed[0, -1, :2])
        x = packed[:, : height * width].transpose(1, 2).unflatten(2, (height, width))
        return self.rgb_activation(self.to_rgb_conv(self.upscale(x, x if use_context else None)))
