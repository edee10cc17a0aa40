"""Latents as tokens and back: patches in reading order, and their position ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import LatentSpec
from tinyflux_pl.nets.position_ids import grid_ids


def patchify(latents: Float[Tensor, "b c h w"], patch: int) -> Float[Tensor, "b n k"]:
    """(B, C, H, W) -> (B, H/p * W/p, C*p*p), channel-major; ConfigError if p does not divide."""
    height, width = latents.shape[-2:]
    if height % patch or width % patch:
        raise ConfigError(
            f"latents of {height} x {width} cannot be cut into patches of {patch}",
            where="patch_size",
            cure=f"choose image sides that give latents divisible by {patch}",
        )
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


def unpatchify(
    tokens: Float[Tensor, "b n k"], patch: int, height: int, width: int
) -> Float[Tensor, "b c h w"]:
    """The inverse of `patchify` for latents of `height` x `width`."""
    rows = height // patch
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=patch, q=patch)


def image_ids(
    height: int, width: int, patch: int, device: torch.device | str = "cpu", stream: int = 0
) -> Float[Tensor, "n 3"]:
    """Position ids (stream, y, x) of latent patches in fp32; the image is stream 0."""
    ids = grid_ids(height // patch, width // patch, device)
    ids[:, 0] = stream
    return ids


def inpaint_channels(latent_spec: LatentSpec) -> int:
    """Number of channels of the inpainting input: latents and mask pixels of each cell."""
    return latent_spec.channels + latent_spec.downsample**2


def joined_pictures(
    pictures: Sequence[Float[Tensor, "b c _h _w"]], patch: int
) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "n 3"]]:
    """An image and its references as one sequence of tokens with position ids.

    The first column of the ids counts the images.
    """
    tokens = torch.cat([patchify(picture, patch) for picture in pictures], 1)
    sizes = [(picture.shape[-2], picture.shape[-1]) for picture in pictures]
    ids = [
        image_ids(height, width, patch, tokens.device, k) for k, (height, width) in enumerate(sizes)
    ]
    return tokens, torch.cat(ids)
