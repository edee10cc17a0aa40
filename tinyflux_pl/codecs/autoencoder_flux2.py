"""FLUX.2's autoencoder as a codec: cells folded into channels, normalised by statistics."""

from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec
from tinyflux_pl.core.specs import LatentSpec


class AutoencoderFlux2Codec(AutoencoderKLCodec):
    """FLUX.2's autoencoder, also used by FLUX.3: latents (B, 128, H/16, W/16).

    The posterior's mode in channel order (c, row, column), minus the running mean and divided by
    the running deviation of the autoencoder's BatchNorm, instead of scale and shift. Raises what
    AutoencoderKLCodec raises.
    """

    kind = "AutoencoderKLFlux2"
    deciding: ClassVar[dict[str, Any]] = {**AutoencoderKLCodec.deciding, "batch_norm_eps": 1e-4}

    @cached_property
    def latent_spec(self) -> LatentSpec:
        """Four times the autoencoder's channels on a grid half as fine."""
        levels = len(self.vae_config.get("block_out_channels", [128, 256, 512, 512]))
        return LatentSpec(4 * self.vae_config.get("latent_channels", 32), 2**levels)

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the latents: weight hash (with statistics), dtype, config."""
        return {
            "codec": "autoencoder_flux2",
            "weights": self._sha256,
            "dtype": self.dtype,
            **self._deciding_settings(),
        }

    def _normalised(self, z: Tensor) -> Tensor:
        mean, deviation = self._statistics()
        return (torch.nn.functional.pixel_unshuffle(z, 2) - mean) / deviation

    def _restored(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics()
        return torch.nn.functional.pixel_shuffle(latents * deviation + mean, 2)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        norm = self._loaded().bn
        mean, variance = norm.running_mean.float(), norm.running_var.float()
        return mean[:, None, None], (variance + norm.eps).sqrt()[:, None, None]
