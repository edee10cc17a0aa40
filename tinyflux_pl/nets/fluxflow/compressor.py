"""FluxFlow's encoder: a picture -> mean and log variance of its latents, nothing beside them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinyflux_pl.nets.bezier import MEAN_START, TrainableBezier
from tinyflux_pl.nets.fluxflow.block_transform import BlockAnalysis
from tinyflux_pl.nets.fluxflow.coordinates import sinusoids_2d, with_coordinates
from tinyflux_pl.nets.fluxflow.stages import (
    DownStage,
    TokenBlock,
    linear_shortcut,
    map_of,
    norm,
    tokens_of,
)

COORDINATES = 2  # channels that tell each pixel its place
# The published log variance begins between -3 and 3, a deviation of at least 0.22: as much as the
# first means differ from picture to picture.
LOG_VARIANCE_START = (-7.0, -4.0, -1.0, 2.0)
FIRST_SHARE = 0.02  # of the network in its sum with the linear transform, at the start
FIRST_LOG_VARIANCE = -3.0  # before its curve: a deviation of about 0.04


class FluxCompressor(nn.Module):
    """Images (B, 3, H, W) -> mean and log variance (B, L, h, w), sides halved per width.

    The means are the curve of a linear transform of the pixels plus the network's. Attention over
    the cells comes before the bottleneck, so that the decoder reads nothing that the KL term does
    not bound. `checkpointing` keeps only each stage's input for the backward pass.
    """

    def __init__(
        self,
        latent_channels: int,
        widths: Sequence[int],
        layers: int,
        heads: int,
        ff_mult: int = 2,
        activation: str = "bezier",
    ) -> None:
        super().__init__()
        pairs = pairwise((3 + COORDINATES, *widths))
        # no ModuleList: memory plans run one of a list of equal blocks, and these halve the sides
        self.stages = nn.Sequential(
            *(DownStage(a, b, activation_name=activation) for a, b in pairs)
        )
        width = widths[-1]
        self.blocks = nn.ModuleList(
            TokenBlock(width, heads, ff_mult, activation) for _ in range(layers)
        )
        self.norm = norm(width)
        self.mean = linear_shortcut(width, latent_channels, FIRST_SHARE)
        self.transform = BlockAnalysis(latent_channels, 2 ** len(widths))
        self.log_variance = nn.Conv2d(width, latent_channels, 1)
        self.mean_curve = TrainableBezier((latent_channels,), MEAN_START, channels=True)
        self.log_variance_curve = TrainableBezier(
            (latent_channels,), LOG_VARIANCE_START, channels=True
        )
        # a bottleneck that starts as noisy as its signal is learned around
        nn.init.constant_(cast(Tensor, self.log_variance.bias), FIRST_LOG_VARIANCE)
        self.checkpointing = False

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor]:
        """(mean, log variance)."""
        x = with_coordinates(images)
        for stage in self.stages:
            x = checkpoint(stage, x, use_reentrant=False) if self.checkpointing else stage(x)
        size = x.shape[-2:]
        positions = sinusoids_2d(*size, x.shape[1], x.device).to(x.dtype)
        tokens = tokens_of(x) + positions
        for block in self.blocks:
            tokens = block(tokens)
        x = self.norm(map_of(tokens, size))
        mean = self.mean(x) + self.transform(images)
        return self.mean_curve(mean), self.log_variance_curve(self.log_variance(x))
