"""FluxFlow's decoder: latents -> a picture, each stage conditioned on the latents by SPADE."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinyflux_pl.nets.bezier import PICTURE_START, TrainableBezier
from tinyflux_pl.nets.fluxflow.block_transform import BlockSynthesis
from tinyflux_pl.nets.fluxflow.stages import UpStage

FIRST_SHARE = 0.1  # of the network in its sum with the linear transform, at the start
CURVES_GAIN = 2.5  # undoes the curves of the means and of the picture, whose slopes are below 1


class FluxExpander(nn.Module):
    """Latents (B, L, h, w) -> pictures (B, 3, H, W) within [-1, 1], sides doubled for each width.

    The picture is the curve of a linear transform of the latents plus the network's. No norm stands
    between the last stage and the picture: it would take the picture's brightness.
    `checkpointing` keeps only each stage's input for the backward pass.
    """

    def __init__(
        self,
        latent_channels: int,
        widths: Sequence[int],
        spade_hidden: int,
        rgb_width: int,
        activation: str = "bezier",
    ) -> None:
        super().__init__()
        self.enter = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        pairs = pairwise((widths[0], *widths))
        # no ModuleList: memory plans run one of a list of equal blocks, and these double the sides
        self.stages = nn.Sequential(
            *(
                UpStage(a, b, latent_channels, spade_hidden, activation_name=activation)
                for a, b in pairs
            )
        )
        self.to_rgb = nn.Sequential(
            nn.Conv2d(widths[-1], rgb_width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(rgb_width, 3, 1),
        )
        with torch.no_grad():
            self.to_rgb[-1].weight.mul_(FIRST_SHARE)
        self.transform = BlockSynthesis(latent_channels, 2 ** len(widths), CURVES_GAIN)
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
        return self.rgb_curve(self.to_rgb(x) + self.transform(latents))
