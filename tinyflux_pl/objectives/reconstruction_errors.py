"""Validation of an autoencoder: errors of its reconstructions, without noise in the bottleneck."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyflux_pl.codecs.autoencoder_networks import AutoencoderNetworks
from tinyflux_pl.core.types import Batch

PEAK = 2.0  # of pictures in [-1, 1]
SMALLEST_ERROR = 1e-10


class ReconstructionErrors:
    """Mean squared error, mean absolute error, and PSNR in dB, the mean of each picture's."""

    names = ("validation/loss", "validation/l1", "validation/psnr")

    @torch.no_grad()
    def errors(self, networks: AutoencoderNetworks, batch: Batch) -> dict[str, Tensor]:
        """The scalars under `names`."""
        images = networks.images(batch.latents).float()
        error = networks(batch.latents).float().clamp(-1, 1) - images
        squared = error.square().flatten(1).mean(1)
        psnr = 10 * torch.log10(PEAK**2 / squared.clamp_min(SMALLEST_ERROR))
        return dict(zip(self.names, (squared.mean(), error.abs().mean(), psnr.mean()), strict=True))
