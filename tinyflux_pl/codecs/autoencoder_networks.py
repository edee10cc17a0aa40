"""An autoencoder in training: its networks and their critic, on folded pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.codecs.trained_autoencoder import AutoencoderSizes
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.specs import LatentSpec
from tinyflux_pl.nets.discriminator import PatchDiscriminator


class AutoencoderNetworks(nn.Module):
    """`autoencoder` and `critic` of one run, on the latents of codec=pixels.

    `images` unfolds a batch's latents. `patch_size` are the cells of the run's codec along a cell
    of this network's latents.
    """

    reads_references = False
    reference_parts = ()
    reads_position_ids = False
    inpaint_channels = 0

    def __init__(
        self, config: AutoencoderSizes, critic: Mapping[str, int], latent_spec: LatentSpec
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
        self.name = config.name
        self.config, self.critic_config, self.latent_spec = config, dict(critic), latent_spec
        self.patch_size = config.downsample // fold
        self.autoencoder = config.autoencoder()
        self.critic = PatchDiscriminator(**self.critic_config)

    def hint_shape(self, height: int, width: int) -> tuple[int, int, int] | None:
        """None: it reads no maps."""
        return None

    def images(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 hp wp"]:
        """The pictures of a batch's latents, which are folded pixels."""
        return self.pixels.decode(latents)

    def forward(self, latents: Float[Tensor, "b c h w"], *_: Any) -> Float[Tensor, "b 3 hp wp"]:
        """Reconstructions; time and conditioning are ignored."""
        return self.autoencoder(self.images(latents))

    def require_size(self, height: int, width: int) -> None:
        """Any size fits."""

    def require_trainable(self) -> None:
        """Raise ConfigError for a frozen critic, and where all of the autoencoder is frozen."""
        if not all(p.requires_grad for p in self.critic.parameters()):
            raise ConfigError(
                "a frozen critic cannot learn",
                where="method.frozen",
                cure="leave the critic out of it; without a critic: objective.critic_weight=0",
            )
        if not any(p.requires_grad for p in self.autoencoder.parameters()):
            raise ConfigError(
                "no part of the autoencoder is left to train",
                where="method.frozen",
                cure="freeze its encoder or its decoder alone",
            )

    def enable_gradient_checkpointing(self) -> None:
        """Keep only each stage's input for the backward pass and compute the rest again."""
        self.autoencoder.enable_gradient_checkpointing()

    def config_dict(self) -> dict[str, Any]:
        """Plain JSON data that describes these networks."""
        return {"autoencoder": self.config.config_dict(), "critic": self.critic_config}


def with_critic(
    config: AutoencoderSizes, critic_width: int, critic_depth: int, latent_spec: LatentSpec
) -> AutoencoderNetworks:
    """Newly initialised networks."""
    critic = {"base_ch": critic_width, "depth": critic_depth, "ctx_dim": config.latent_channels}
    return AutoencoderNetworks(config, critic, latent_spec)
