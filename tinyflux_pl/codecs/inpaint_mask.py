"""Inpainting inputs: masked picture and mask as channels beside the noisy latents (FLUX.1 Fill)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.protocols import Codec


def inpaint_input(
    codec: Codec, images: Float[Tensor, "b 3 h w"], masks: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b k h8 w8"]:
    """Channels of the inpainting input, (B, C + d * d, H/d, W/d).

    Latents of the images, mid-grey (0) where masked, then the pixels of the masks. `masks` are 1
    where to paint. Each latent cell holds its d x d pixels of the mask as channels, row by row, so
    that 2 x 2 packing gives FLUX.1 Fill's 64 + 256 (d = 8, C = 16). The posterior's mode is used.
    """
    cells = torch.nn.functional.pixel_unshuffle(masks, codec.latent_spec.downsample)
    latents = codec.encode(images * (1 - masks))
    return torch.cat([latents, cells.to(latents)], 1)
