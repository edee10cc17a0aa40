"""The published encoder: a picture -> tokens of latents, then a token that holds their grid."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.nets.bezier import (
    LOG_VARIANCE_START,
    MEAN_START,
    BezierActivation,
    TrainableBezier,
)
from tinyflux_pl.nets.fluxflow.coordinates import sinusoids_2d, with_coordinates


class Packed(NamedTuple):
    """Tokens (B, N + 1, D), the last one holding the grid's size, with mean and log variance."""

    tokens: Tensor
    mean: Tensor
    log_variance: Tensor


def _activation() -> BezierActivation:
    return BezierActivation("sigmoid", "silu")


def _pointwise(width: int) -> nn.Sequential:
    layers = (nn.Sequential(nn.Conv2d(width, 5 * width, 1), _activation()) for _ in range(2))
    return nn.Sequential(*layers)


class TokenBlock(nn.Module):
    """Self-attention and a Bezier feed-forward network, each after a norm."""

    def __init__(self, width: int, heads: int, ff_mult: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        hidden = width * ff_mult
        self.ff = nn.Sequential(
            nn.Linear(width, 5 * hidden), _activation(), nn.Linear(hidden, width)
        )

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Both residual branches."""
        normed = self.norm1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.ff(self.norm2(x))


class FluxCompressor(nn.Module):
    """Pictures (B, 3, H, W) -> `Packed`, always sampled.

    `content_bypass` adds the unsampled map to the tokens, as published: what the decoder reads is
    then not bounded by the KL term.
    """

    def __init__(
        self,
        in_channels: int = 3,
        d_model: int = 128,
        downscales: int = 4,
        max_hw: int = 1024,
        attn_layers: int = 4,
        attn_heads: int = 8,
        attn_ff_mult: int = 2,
        content_bypass: bool = True,
    ) -> None:
        super().__init__()
        self.max_hw, self.content_bypass = max_hw, content_bypass
        widths = np.linspace(in_channels + 2, max(d_model, 8), downscales + 1)
        channels = widths.round().astype(int).tolist()
        pairs = list(itertools.pairwise(channels))
        self.encoder_first_step = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, 5 * b, 3, padding=1, bias=False), _activation())
            for a, b in pairs
        )
        self.encoder_z = nn.ModuleList(
            nn.Sequential(nn.Conv2d(b, 5 * b, 8, stride=2, padding=3), _activation())
            for _, b in pairs
        )
        self.latent_proj = _pointwise(d_model)
        self.mu_proj, self.logvar_proj = _pointwise(d_model), _pointwise(d_model)
        self.mu_activation = TrainableBezier((d_model,), MEAN_START, channels=True)
        self.logvar_activation = TrainableBezier((d_model,), LOG_VARIANCE_START, channels=True)
        self.token_attn = nn.ModuleList(
            TokenBlock(d_model, attn_heads, attn_ff_mult) for _ in range(attn_layers)
        )

    def forward(self, images: Float[Tensor, "b 3 h w"], noise: Tensor | None = None) -> Packed:
        """Encode; `noise` (B, D, h, w) is the bottleneck's, drawn by torch if None."""
        x = with_coordinates(images)
        for first, down in zip(self.encoder_first_step, self.encoder_z, strict=True):
            x = down(first(x))
        latent = self.latent_proj(x)
        mean = self.mu_activation(self.mu_proj(latent))
        log_variance = self.logvar_activation(self.logvar_proj(latent))
        noise = torch.randn_like(mean) if noise is None else noise
        z = mean + noise * (0.5 * log_variance).exp()
        height, width = z.shape[-2:]
        positions = sinusoids_2d(height, width, z.shape[1], z.device).to(z.dtype)
        tokens = z.flatten(2).transpose(1, 2) + positions
        if self.content_bypass:
            tokens = tokens + latent.flatten(2).transpose(1, 2)
        for block in self.token_attn:
            tokens = block(tokens)
        size = torch.zeros_like(tokens[:, :1])
        size[..., 0], size[..., 1] = height / self.max_hw, width / self.max_hw
        return Packed(torch.cat((tokens, size), 1), mean, log_variance)
