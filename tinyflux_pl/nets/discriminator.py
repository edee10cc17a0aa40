"""The patch discriminator: spectral norms, LeakyReLU, and projection on a context vector."""

from __future__ import annotations

import itertools
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

SLOPE = 0.2
WARM_UP = 15  # power iterations at the start


def _conv_pair(channels: int, out: int) -> nn.Sequential:
    """Two 3 x 3 convolutions under spectral norms, with a LeakyReLU between."""
    return nn.Sequential(
        spectral_norm(nn.Conv2d(channels, out, 3, padding=1)),
        nn.LeakyReLU(SLOPE),
        spectral_norm(nn.Conv2d(out, out, 3, padding=1)),
    )


class DownBlock(nn.Module):
    """Two pairs of convolutions, then half the sides."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv_pair(channels, out), _conv_pair(out, out)
        self.activation = nn.LeakyReLU(SLOPE)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        """Features at half the sides."""
        return self.pool(self.activation(self.conv2(self.activation(self.conv1(x)))))


class PatchDiscriminator(nn.Module):
    """Pictures (B, 3, H, W) and a context (B, K) -> logits (B, 1, h, w), one a patch.

    With `ctx_dim` the logits gain the inner product of the pooled features and the projected
    context (Miyato and Koyama 2018, 1802.05637). The power iterations of the spectral norms are run
    at the start: without them a first evaluation has any scale.
    """

    def __init__(
        self, in_channels: int = 3, base_ch: int = 64, depth: int = 4, ctx_dim: int = 0
    ) -> None:
        super().__init__()
        widths = [base_ch * 2**i for i in range(depth + 1)]
        blocks = (DownBlock(a, b) for a, b in itertools.pairwise(widths))
        self.backbone = nn.Sequential(
            _conv_pair(in_channels, base_ch), nn.LeakyReLU(SLOPE), *blocks
        )
        self.head = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))
        self.ctx_proj = (
            nn.Sequential(
                spectral_norm(nn.Linear(ctx_dim, widths[-1])),
                nn.LeakyReLU(SLOPE),
                spectral_norm(nn.Linear(widths[-1], widths[-1])),
            )
            if ctx_dim
            else None
        )
        warm_up(self)

    def forward(
        self, images: Float[Tensor, "b 3 h w"], context: Float[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b 1 hp wp"]:
        """The logits; ValueError for a context where the network has none, and the reverse."""
        if (context is None) != (self.ctx_proj is None):
            raise ValueError("a context vector belongs to a discriminator with ctx_dim")
        features = self.backbone(images)
        logits = self.head(features)
        if self.ctx_proj is None:
            return logits
        projected = self.ctx_proj(context)
        return logits + (features.mean((2, 3)) * projected).sum(1)[:, None, None, None]


@torch.no_grad()
def warm_up(module: nn.Module, iterations: int = WARM_UP) -> None:
    """Run the power iterations of every spectral norm below `module`, so that u and v fit W."""
    for layer in module.modules():
        if "weight_orig" not in dict(layer.named_parameters(recurse=False)):
            continue
        matrix = cast(Tensor, layer.weight_orig).flatten(1)
        u, v = cast(Tensor, layer.weight_u), cast(Tensor, layer.weight_v)
        for _ in range(iterations):
            v.copy_(nn.functional.normalize(matrix.T @ u, dim=0))
            u.copy_(nn.functional.normalize(matrix @ v, dim=0))
