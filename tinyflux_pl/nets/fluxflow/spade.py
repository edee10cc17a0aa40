"""SPADE: normalisation whose scale and shift are drawn, place by place, from a context map."""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

HIDDEN = 128  # channels between the context and scale and shift, as published
MAX_GROUPS = 32


class Spade(nn.Module):
    """SPADE (Park et al. 2019, 1903.07291): features (B, C, H, W) and a context map -> features.

    The context map (B, K, h, w) may have any size.
    """

    def __init__(
        self, channels: int, context: int, hidden: int = HIDDEN, groups: int = MAX_GROUPS
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(groups, channels), channels, affine=False)
        self.mlp_shared = nn.Sequential(nn.Conv2d(context, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "b c h w"], context: Float[Tensor, "b k hc wc"]
    ) -> Float[Tensor, "b c h w"]:
        """norm(x) (1 + gamma) + beta."""
        if context.shape[-2:] != x.shape[-2:]:
            size = x.shape[-2:]
            context = F.interpolate(context, size=size, mode="bilinear", align_corners=False)
        shared = self.mlp_shared(context)
        return self.norm(x) * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)
