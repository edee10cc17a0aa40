"""FluxFlow's decoder: latents -> a picture, each stage conditioned on the latents by SPADE."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinyflux_pl.nets.bezier import PICTURE_START, TrainableBezier
from tinyflux_pl.nets.fluxflow.stages import UpStage

GROUP = 12  # channels of a group before the picture, as published; one alone would lose colours


class FluxExpander(nn.Module):
    """Latents (B, L, h, w) -> pictures (B, 3, H, W) within [-1, 1], sides doubled for each width.

    `checkpointing` keeps only each stage's input for the backward pass.
    """

    def __init__(
        self, latent_channels: int, widths: Sequence[int], spade_hidden: int, rgb_width: int
    ) -> None:
        super().__init__()
        self.enter = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.stages = nn.ModuleList(UpStage(a, b, latent_channels, spade_hidden) for a, b in pairs)
        self.to_rgb = nn.Sequential(
            nn.Conv2d(widths[-1], rgb_width, 3, padding=1),
            nn.GroupNorm(math.gcd(rgb_width, max(1, rgb_width // GROUP)), rgb_width),
            nn.SiLU(),
            nn.Conv2d(rgb_width, 3, 1),
        )
        self.rgb_curve = TrainableBezier((3,), PICTURE_START, channels=True)
        self.checkpointing = False

    def forward(self, latents: Float[Tensor, "b l h w"]) -> Float[Tensor, "b 3 hp wp"]:
        """The picture."""
        x = self.enter(latents)
        for stage in self.stages:
            if self.checkpointing:
                x = checkpoint(stage, x, latents, use_reentrant=False)
            else:
                x = stage(x, latents)
        return self.rgb_curve(self.to_rgb(x))
