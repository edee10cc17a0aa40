"""Lune's extractor: the spatial mean of the teacher's middle block."""

from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import CaptureError
from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.denoisers.unet import UNetDenoiser
from tinyflux_pl.experts.feature_capture import BucketExtractor, require_finite


class _MidBlockDone(Exception):
    """Ends the forward pass after the middle block."""


def mid_block_mean(denoiser: UNetDenoiser, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    """Spatial mean (B, E) of the middle block's output, fp32.

    The forward pass ends there: the up blocks, two thirds of Stable Diffusion's cost, do not affect
    it.
    """
    block = denoiser.unet.mid_block
    if block is None:
        raise CaptureError(
            "the teacher has no middle block", where=denoiser.name, cure="choose another teacher"
        )
    outputs: list[Tensor] = []

    def stop(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        outputs.append(output)
        raise _MidBlockDone

    hook = block.register_forward_hook(stop)
    try:
        denoiser(x, t, cond)
    except _MidBlockDone:
        return require_finite(outputs[0].float().mean((2, 3)), "Lune's features")
    finally:
        hook.remove()
    raise CaptureError(
        "the middle block did not run",
        where=denoiser.name,
        cure="do not compile or replace the teacher's forward",
    )


class LuneFeatures(BucketExtractor):
    """Extracts lune.features (B, K, E)."""

    name = "lune"

    def capture(self, x: Tensor, tau: Tensor, cond: Conditioning) -> dict[str, Tensor]:
        """features (rows, E), fp32."""
        return {"features": mid_block_mean(self.teacher.denoiser, x, tau, cond)}
