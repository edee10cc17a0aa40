"""diffusers' AutoencoderKL to be trained from scratch, beside FluxFlow's autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.codecs.autoencoder_networks import AutoencoderNetworks, with_critic
from tinyflux_pl.codecs.trained_autoencoder import TrainedAutoencoder, require_sizes
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.core.specs import LatentSpec, TextSpec

LOG_VARIANCES = (-30.0, 20.0)  # what diffusers bounds them to


@dataclass(frozen=True)
class KLSizes:
    """Sizes of an AutoencoderKL; one width for each level, the finest first, halved between."""

    name: ClassVar[str] = "kl_autoencoder"
    latent_channels: int = 16
    widths: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32
    attention: bool = True  # over the coarsest level

    def __post_init__(self) -> None:
        require_sizes([self.latent_channels, self.layers_per_block, self.norm_groups, *self.widths])
        if not self.widths or not self.norm_groups:
            raise ConfigError("a size is 0", where="model", cure="give widths and norm_groups")
        if any(width % self.norm_groups for width in self.widths):
            raise ConfigError(
                f"norm_groups={self.norm_groups} does not divide the widths {self.widths}",
                where="model.norm_groups",
                cure="a common divisor of all widths",
            )

    @property
    def downsample(self) -> int:
        """Pixels along the side of a latent cell."""
        return int(2 ** (len(self.widths) - 1))

    def autoencoder(self) -> KLAutoencoder:
        """The network, newly initialised."""
        return KLAutoencoder(self)

    def config_dict(self) -> dict[str, Any]:
        """Plain JSON data of these sizes."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


class KLEncoder(nn.Module):
    """Images (B, 3, H, W) -> mean and log variance (B, L, h, w)."""

    def __init__(self, network: nn.Module, quant: nn.Module) -> None:
        super().__init__()
        self.network, self.quant = network, quant

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor]:
        """(mean, log variance)."""
        mean, log_variance = self.quant(self.network(images)).chunk(2, 1)
        return mean, log_variance.clamp(*LOG_VARIANCES)


class KLDecoder(nn.Module):
    """Latents (B, L, h, w) -> pictures (B, 3, H, W)."""

    def __init__(self, network: nn.Module, post_quant: nn.Module) -> None:
        super().__init__()
        self.network, self.post_quant = network, post_quant

    def forward(self, latents: Float[Tensor, "b l h w"]) -> Float[Tensor, "b 3 hp wp"]:
        """The picture."""
        return self.network(self.post_quant(latents))


class KLAutoencoder(TrainedAutoencoder):
    """Encoder and decoder of an AutoencoderKL of diffusers, as that class initialises them."""

    def __init__(self, sizes: KLSizes) -> None:
        from diffusers import AutoencoderKL

        levels = len(sizes.widths)
        network = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=sizes.widths,
            layers_per_block=sizes.layers_per_block,
            latent_channels=sizes.latent_channels,
            norm_num_groups=sizes.norm_groups,
            mid_block_add_attention=sizes.attention,
        )
        encoder = KLEncoder(network.encoder, network.quant_conv)
        decoder = KLDecoder(network.decoder, network.post_quant_conv)
        super().__init__(encoder, decoder, sizes.latent_channels)
        self._enable_checkpointing = network.enable_gradient_checkpointing

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each block's input for the backward pass and compute the rest again."""
        self._enable_checkpointing()


def build(
    latent_spec: LatentSpec,
    text_spec: TextSpec,
    path: Path,
    *,
    latent_channels: int = 16,
    widths: Sequence[int] = (128, 256, 512, 512),
    layers_per_block: int = 2,
    norm_groups: int = 32,
    attention: bool = True,
    critic_width: int = 64,
    critic_depth: int = 4,
) -> AutoencoderNetworks:
    """Newly initialised networks; text and path, which every model is offered, are not read."""
    sizes = KLSizes(latent_channels, tuple(widths), layers_per_block, norm_groups, attention)
    return with_critic(sizes, critic_width, critic_depth, latent_spec)
