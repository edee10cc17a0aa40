"""Lossless space-to-depth: the embedded default codec, with nothing to download or to train."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Codec
from tinyflux_pl.core.specs import LatentSpec

# Drawn pictures have a light ground (about 0.8) and smaller, darker shapes: pixels average near 0.5
# and spread by about 0.5. Both constants are powers of two, so scaling rounds nothing.
SHIFT = 0.5
SCALE = 2.0


class PixelFolding(Codec):
    """Each fold x fold square of pixels becomes one latent cell of 3 * fold^2 channels.

    latents = (pixels - 0.5) * 2; the inverse is exact up to one fp32 rounding. Channels are ordered
    (colour, row in square, column in square), as torch's pixel_unshuffle orders them.
    Raises ConfigError for sizes that `fold` does not divide.
    """

    name = "pixels"

    def __init__(self, fold: int = 2) -> None:
        if fold < 1:
            raise ConfigError(
                f"fold is {fold}", where="codec.fold", cure="use an integer of at least 1"
            )
        self.fold = fold
        self.latent_spec = LatentSpec(3 * fold * fold, fold)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h8 w8"]:
        """Images in [-1, 1] -> latents."""
        height, width = images.shape[-2:]
        if height % self.fold or width % self.fold:
            raise ConfigError(
                f"an image of {height} x {width} does not fold by {self.fold}",
                where="codec.fold",
                cure=f"use sides that are multiples of {self.fold}, or another fold",
            )
        return (torch.nn.functional.pixel_unshuffle(images, self.fold) - SHIFT) * SCALE

    def decode(self, latents: Float[Tensor, "b c h8 w8"]) -> Float[Tensor, "b 3 h w"]:
        """Latents -> images, not clamped."""
        if latents.shape[1] != self.latent_spec.channels:
            raise ConfigError(
                f"{latents.shape[1]} channels do not unfold by {self.fold}",
                where="codec.fold",
                cure=f"give latents of {self.latent_spec.channels} channels",
            )
        return torch.nn.functional.pixel_shuffle(latents / SCALE + SHIFT, self.fold)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments: they rebuild this codec."""
        return {"fold": self.fold}

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that decides the latents."""
        return {"codec": self.name, "fold": self.fold, "shift": SHIFT, "scale": SCALE}
