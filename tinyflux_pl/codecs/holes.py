"""A picture with a hole as the channels that networks of Fill's kind read beside the noisy latents."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.protocols import Codec


def hole_channels(
    codec: Codec, images: Float[Tensor, "b 3 h w"], holes: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b k h8 w8"]:
    """(B, C + d * d, H/d, W/d): the latents of the images with their holes at mid-grey (0), then the holes' pixels.

    `holes` are 1 where to paint. Each latent cell holds its d x d pixels of the hole as channels, row by row,
    so that 2 x 2 packing gives FLUX.1 Fill's 64 + 256 (d = 8, C = 16). The autoencoder's mode is taken.
    """
    cells = torch.nn.functional.pixel_unshuffle(holes, codec.latent_spec.downsample)
    known = codec.encode(images * (1 - holes))
    return torch.cat([known, cells.to(known)], 1)
