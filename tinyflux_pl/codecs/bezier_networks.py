"""FluxFlow's autoencoder: its sizes, its encoder and decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tinyflux_pl.codecs.autoencoder_networks import AutoencoderNetworks, with_critic
from tinyflux_pl.codecs.trained_autoencoder import TrainedAutoencoder, require_sizes
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.nets.fluxflow.activations import require_known
from tinyflux_pl.nets.fluxflow.compressor import FluxCompressor
from tinyflux_pl.nets.fluxflow.expander import FluxExpander


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the two networks; one width for each halving, the finest first in both."""

    name: ClassVar[str] = "bezier_autoencoder"
    latent_channels: int = 128
    encoder_widths: tuple[int, ...] = (36, 66, 97, 128)
    decoder_widths: tuple[int, ...] = (128, 128, 128, 128)
    attention_layers: int = 4
    attention_heads: int = 8
    spade_hidden: int = 128
    rgb_width: int = 96
    activation: str = "bezier"  # of the branches

    def __post_init__(self) -> None:
        values = [getattr(self, name) for name in ("latent_channels", "attention_layers")]
        values += [self.attention_heads, self.spade_hidden, self.rgb_width]
        require_sizes([*values, *self.encoder_widths, *self.decoder_widths])
        require_known(self.activation)
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

    def autoencoder(self) -> BezierAutoencoder:
        """The network, newly initialised."""
        return BezierAutoencoder(self)

    def config_dict(self) -> dict[str, Any]:
        """Plain JSON data of these sizes."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


class BezierAutoencoder(TrainedAutoencoder):
    """FluxFlow's encoder and decoder."""

    encoder: FluxCompressor
    decoder: FluxExpander

    def __init__(self, config: AutoencoderConfig) -> None:
        encoder = FluxCompressor(
            config.latent_channels,
            config.encoder_widths,
            config.attention_layers,
            config.attention_heads,
            activation=config.activation,
        )
        decoder = FluxExpander(
            config.latent_channels,
            tuple(reversed(config.decoder_widths)),
            config.spade_hidden,
            config.rgb_width,
            config.activation,
        )
        super().__init__(encoder, decoder, config.latent_channels)

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each stage's input for the backward pass and compute the rest again."""
        self.encoder.checkpointing = True
        self.decoder.checkpointing = True


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
    activation: str = "bezier",
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
        activation,
    )
    return with_critic(config, critic_width, critic_depth, latent_spec)
