"""PSNR and SSIM of reconstructions, by torchmetrics."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from tinyflux_pl.codecs.autoencoder_networks import AutoencoderNetworks
from tinyflux_pl.core.types import Batch

RANGE = (-1.0, 1.0)


@torch.inference_mode()
def quality(
    networks: AutoencoderNetworks, batches: Iterable[Batch], device: torch.device
) -> tuple[float, float]:
    """(PSNR in dB, SSIM), each the mean over pictures, which are clamped to [-1, 1]."""
    from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

    options = {"data_range": RANGE, "reduction": "elementwise_mean"}
    psnr = PeakSignalNoiseRatio(dim=(1, 2, 3), **options).to(device)
    ssim = StructuralSimilarityIndexMeasure(**options).to(device)
    for batch in batches:
        moved = batch.to(device)
        images = networks.images(moved.latents).float()
        restored = networks(moved.latents).float().clamp(*RANGE)
        psnr.update(restored, images)
        ssim.update(restored, images)
    return float(psnr.compute()), float(ssim.compute())
