"""A linear transform of blocks of pixels, and its inverse; both start as low-pass cosines.

Beside the networks, so that brightness and colours reach the latents and the picture from the first
step: learned through every activation they come late or never.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

COLOURS = 3
# Of orthonormal coefficients, such that latents are below 1: of a block's mean, and of its waves.
MEAN_SCALE, WAVE_SCALE = 1 / 16, 1 / 4


def lowest_cosines(count: int, side: int) -> Float[Tensor, "n p"]:
    """Orthonormal cosines (count, 3 side^2) of one colour each, lowest frequencies first.

    Columns are ordered as pixel_unshuffle orders colour, row and column. Rows beyond
    3 side^2 stay zero.
    """
    positions = (torch.arange(side) + 0.5) / side
    waves = torch.stack([torch.cos(math.pi * k * positions) for k in range(side)])
    waves = torch.nn.functional.normalize(waves, dim=1)
    pairs = [(u, v) for u in range(side) for v in range(side)]
    pairs.sort(key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair))
    basis = torch.zeros(count, COLOURS, side, side)
    for row in range(min(count, COLOURS * side * side)):
        u, v = pairs[row // COLOURS]
        basis[row, row % COLOURS] = waves[u][:, None] * waves[v]
    return basis.flatten(1)


def _scales(count: int) -> Float[Tensor, "n 1"]:
    """The factor of each coefficient."""
    scales = torch.full((count, 1), WAVE_SCALE)
    scales[:COLOURS] = MEAN_SCALE
    return scales


class BlockAnalysis(nn.Module):
    """Pictures (B, 3, H, W) -> (B, L, H / side, W / side), by one linear map of each block."""

    def __init__(self, latent_channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.map = nn.Conv2d(COLOURS * side * side, latent_channels, 1)
        basis = lowest_cosines(latent_channels, side) * _scales(latent_channels)
        with torch.no_grad():
            self.map.weight.copy_(basis[:, :, None, None])
            self.map.bias.zero_()

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b l hc wc"]:
        """The blocks' coefficients."""
        return self.map(F.pixel_unshuffle(images, self.side))


class BlockSynthesis(nn.Module):
    """(B, L, h, w) -> pictures (B, 3, h side, w side).

    At the start the inverse of `BlockAnalysis`, times `gain`.
    """

    def __init__(self, latent_channels: int, side: int, gain: float) -> None:
        super().__init__()
        self.side = side
        self.map = nn.Conv2d(latent_channels, COLOURS * side * side, 1)
        basis = lowest_cosines(latent_channels, side) * gain / _scales(latent_channels)
        with torch.no_grad():
            self.map.weight.copy_(basis.T[:, :, None, None])
            self.map.bias.zero_()

    def forward(self, latents: Float[Tensor, "b l h w"]) -> Float[Tensor, "b 3 hp wp"]:
        """The picture of the coefficients."""
        return F.pixel_shuffle(self.map(latents), self.side)
