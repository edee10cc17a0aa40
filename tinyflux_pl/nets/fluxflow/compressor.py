"""FluxFlow's encoder: a picture -> mean and log variance of its latents, nothing beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinyflux_pl.nets.bezier import FAN, LOG_VARIANCE_START, MEAN_START, TrainableBezier
from tinyflux_pl.nets.fluxflow.coordinates import sinusoids_2d, with_coordinates
from tinyflux_pl.nets.fluxflow.stages import DownStage, TokenBlock, activation, map_of, tokens_of

COORDINATES = 2  # channels that tell each pixel its place
FIRST_LOG_VARIANCE = -2.0  # before its curve: a deviation of about 0.3


class FluxCompressor(nn.Module):
    """Pictures (B, 3, H, W) -> mean and log variance (B, L, h, w), sides divided by 2 for each
    width.

    Attention over the cells comes before the bottleneck, so that the decoder reads nothing that the
    KL term does not bound. `checkpointing` keeps only each stage's input for the backward pass.
    """

    def __init__(
        self, latent_channels: int, widths: Sequence[int], layers: int, heads: int, ff_mult: int = 2
    ) -> None:
        super().__init__()
        pairs = zip((3 + COORDINATES, *widths), widths, strict=False)
        self.stages = nn.ModuleList(DownStage(a, b) for a, b in pairs)
        width = widths[-1]
        self.blocks = nn.ModuleList(TokenBlock(width, heads, ff_mult) for _ in range(layers))
        self.latent = nn.Conv2d(width, FAN * width, 1)
        self.activation = activation()
        self.mean = nn.Conv2d(width, latent_channels, 1)
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
        x = self.activation(self.latent(map_of(tokens, size)))
        return self.mean_curve(self.mean(x)), self.log_variance_curve(self.log_variance(x))
