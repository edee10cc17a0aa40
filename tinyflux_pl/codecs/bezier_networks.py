"""FluxFlow's autoencoder as it is trained: encoder, decoder and their critic, on folded pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.nets.discriminator import PatchDiscriminator
from tinyflux_pl.nets.fluxflow.compressor import FluxCompressor
from tinyflux_pl.nets.fluxflow.expander import FluxExpander

LARGEST = 4096  # of any size, whoever describes it
MEMORY = 0.99  # of the running statistics of the latents: the share that stays at each step
SMALLEST_STD = 1e-3  # of a channel that carries nothing


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the two networks; one width for each halving, the finest first in both."""

    latent_channels: int = 128
    encoder_widths: tuple[int, ...] = (36, 66, 97, 128)
    decoder_widths: tuple[int, ...] = (128, 128, 128, 128)
    attention_layers: int = 4
    attention_heads: int = 8
    spade_hidden: int = 128
    rgb_width: int = 96

    def __post_init__(self) -> None:
        values = [getattr(self, name) for name in ("latent_channels", "attention_layers")]
        values += [self.attention_heads, self.spade_hidden, self.rgb_width]
        values += [*self.encoder_widths, *self.decoder_widths]
        if any(type(value) is not int or not 0 <= value <= LARGEST for value in values):
            raise ConfigError(
                f"sizes {values}", where="model", cure=f"whole numbers from 0 to {LARGEST}"
            )
        if len(self.encoder_widths) != len(self.decoder_widths):
            raise ConfigError(
                "encoder and decoder differ in depth",
                where="model.encoder_widths, model.decoder_widths",
                cure="one width for each halving in both: four for latents of 1/16",
            )

    @property
    def downsample(self) -> int:
        """Pixels along the side of a latent cell."""
        return int(2 ** len(self.encoder_widths))


class BezierAutoencoder(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] <-> latents (B, L, h, w), with the latents' statistics.

    `latent_mean` and `latent_std` (L,) follow the latents of the training batches; codecs.bezier
    normalises with them.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.encoder = FluxCompressor(
            config.latent_channels,
            config.encoder_widths,
            config.attention_layers,
            config.attention_heads,
        )
        self.decoder = FluxExpander(
            config.latent_channels,
            tuple(reversed(config.decoder_widths)),
            config.spade_hidden,
            config.rgb_width,
        )
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The reconstruction from the latents' means."""
        return self.decoder(self.encoder(images)[0])

    @torch.no_grad()
    def follow(self, mean: Float[Tensor, "b l h w"], log_variance: Tensor) -> None:
        """Move the statistics toward a batch's latents; values that are not finite are left out."""
        mean, variance = mean.float(), log_variance.float().exp()
        spread = mean.var((0, 2, 3), correction=0) + variance.mean((0, 2, 3))
        seen = (mean.mean((0, 2, 3)), spread.sqrt().clamp_min(SMALLEST_STD))
        for statistic, value in zip((self.latent_mean, self.latent_std), seen, strict=True):
            moved = statistic.lerp(value, 1 - MEMORY)
            statistic.copy_(torch.where(value.isfinite(), moved, statistic))


class AutoencoderNetworks(nn.Module):
    """`autoencoder` and `critic`, the networks of one run, on the latents of codec=pixels.

    `images` unfolds a batch's latents. `patch_size` are the cells of the run's codec along a cell
    of this network's latents.
    """

    name: ClassVar[str] = "bezier_autoencoder"
    reads_references = False
    reads_position_ids = False
    inpaint_channels = 0

    def __init__(
        self, config: AutoencoderConfig, critic: Mapping[str, int], latent_spec: LatentSpec
    ) -> None:
        super().__init__()
        fold = latent_spec.downsample
        self.pixels = PixelFolding(fold)
        if self.pixels.latent_spec != latent_spec or config.downsample % fold:
            raise SpecMismatch(
                f"an autoencoder is trained on pixels, not on {latent_spec}",
                where="codec",
                cure="codec=pixels",
            )
        self.config, self.critic_config, self.latent_spec = config, dict(critic), latent_spec
        self.patch_size = config.downsample // fold
        self.autoencoder = BezierAutoencoder(config)
        self.critic = PatchDiscriminator(**self.critic_config)

    def images(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 hp wp"]:
        """The pictures of a batch's latents, which are folded pixels."""
        return self.pixels.decode(latents)

    def forward(self, latents: Float[Tensor, "b c h w"], *_: Any) -> Float[Tensor, "b 3 hp wp"]:
        """Reconstructions; a denoiser's time and conditioning are not read."""
        return self.autoencoder(self.images(latents))

    def require_size(self, height: int, width: int) -> None:
        """Any size fits."""

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each stage's input for the backward pass and compute the rest again."""
        self.autoencoder.encoder.checkpointing = True
        self.autoencoder.decoder.checkpointing = True

    def config_dict(self) -> dict[str, Any]:
        """Plain JSON data that describes these networks."""
        sizes = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.config).items()}
        return {"autoencoder": sizes, "critic": self.critic_config}


def build(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    *,
    latent_channels: int = 128,
    encoder_widths: Sequence[int] = (36, 66, 97, 128),
    decoder_widths: Sequence[int] = (128, 128, 128, 128),
    attention_layers: int = 4,
    attention_heads: int = 8,
    spade_hidden: int = 128,
    rgb_width: int = 96,
    critic_width: int = 64,
    critic_depth: int = 4,
) -> AutoencoderNetworks:
    """Newly initialised networks; text and path, which every model is offered, are not read."""
    config = AutoencoderConfig(
        latent_channels,
        tuple(encoder_widths),
        tuple(decoder_widths),
        attention_layers,
        attention_heads,
        spade_hidden,
        rgb_width,
    )
    critic = {"base_ch": critic_width, "depth": critic_depth, "ctx_dim": latent_channels}
    return AutoencoderNetworks(config, critic, latent_spec)
