"""Tiled encoding and decoding: coarse levels run on the whole picture, fine levels on tiles.

The levels of the latents' grid, with the attention, hold few of the numbers and most of what tiles
would change. Fine levels take the memory: they run over tiles, with group norms whose statistics
are those of a sketch, every k-th row and column of all of it, no larger than a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.codecs import norm_statistics, tiles

# sides of the sketch in a side of a tile: features are smoother than pixels
DECODED, ENCODED = 1.5, 1.0


def decode(
    network: Any, z: Float[Tensor, "b c h8 w8"], tile: int | None, factor: float
) -> Float[Tensor, "b 3 h w"]:
    """Decode an AutoencoderKL's own latents to pixels, fp32; `tile` and `factor` as in `encode`."""
    cells = None if tile is None else int(tile / factor)
    if cells is None or max(z.shape[-2:]) <= cells:
        pixels = int(z.shape[-2] * z.shape[-1] * factor**2)
        return tiles.in_batches(lambda part: network.decode(part).sample.float(), z, pixels)
    fine = partial(_pixels, network.decoder)
    pictures = []
    for each in z.split(1):
        features = _features(network, each)
        finer = features.shape[-1] // each.shape[-1]
        sides = (cells * finer, 1, factor / finer, DECODED)
        pictures.append(_tiled(network.decoder, fine, features, *sides))
    return torch.cat(pictures)


def encode(
    network: Any, images: Float[Tensor, "b 3 h w"], tile: int | None, factor: float
) -> Float[Tensor, "b c2 h8 w8"]:
    """The posterior's moments of images; pictures with a side above `tile` pixels in tiles.

    `factor` is a picture's side over its latents'.
    """
    height, width = images.shape[-2:]
    if tile is None or max(height, width) <= tile:
        plain = partial(_plain_moments, network)
        return tiles.in_batches(plain, images, height * width)
    fine = partial(_downsampled, network.encoder)
    sides = (tile, int(factor), 1 / factor, ENCODED)
    features = (_tiled(network.encoder, fine, x, *sides) for x in images.split(1))
    return torch.cat([_moments(network, each) for each in features])


def _tiled(
    half: Any,
    fine: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: int,
    cell: int,
    scale: float,
    ratio: float,
) -> Tensor:
    """Run `fine` levels of `half` over the tiles of one picture, with the sketch's statistics.

    The sketch's side is at most the tile's over `ratio`.
    """
    step = math.ceil(ratio * max(x.shape[-2:]) / tile)
    sketch = x[..., ::step, ::step]
    # whole cells: downsampling halves the sides
    rows, columns = (side // cell * cell for side in sketch.shape[-2:])
    sketch = sketch[..., :rows, :columns]
    with norm_statistics.applied(norm_statistics.measured(half, partial(fine, sketch))):
        return tiles.tiled(fine, x, tile, cell, scale)


def _features(network: Any, z: Tensor) -> Tensor:
    """Latents through the levels at their own resolution, and the first upsampling."""
    decoder = network.decoder
    x = z if network.post_quant_conv is None else network.post_quant_conv(z)
    return decoder.up_blocks[0](decoder.mid_block(decoder.conv_in(x)))


def _pixels(decoder: Any, x: Tensor) -> Tensor:
    for block in decoder.up_blocks[1:]:
        x = block(x)
    return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x))).float()


def _plain_moments(network: Any, images: Tensor) -> Tensor:
    return network.encode(images).latent_dist.parameters


def _downsampled(encoder: Any, x: Tensor) -> Tensor:
    """Pixels through the levels with a finer resolution than the latents'."""
    x = encoder.conv_in(x)
    for block in encoder.down_blocks[:-1]:
        x = block(x)
    return x


def _moments(network: Any, x: Tensor) -> Tensor:
    encoder = network.encoder
    x = encoder.mid_block(encoder.down_blocks[-1](x))
    x = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(x)))
    return x if network.quant_conv is None else network.quant_conv(x)
