"""A few tokens attended into one context vector, and its gated injection into all tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.nets.attention import attend


class ContextAttentionMixer(nn.Module):
    """Tokens (B, K, D) -> (B, K, D) and their class token (B, D), by one layer of self-attention.

    The class token starts at zero and is added after the tokens are normalised.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "b k d"]) -> tuple[Tensor, Tensor]:
        """(tokens, class token)."""
        cls = self.cls.expand(len(tokens), -1, -1)
        x = torch.cat((cls, self.norm_in(tokens)), 1)
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = self.norm_out(self.out_proj(attend(query, key, value)))
        return mixed[:, 1:], mixed[:, 0]


class GatedContextInjection(nn.Module):
    """x sigmoid(W_gate c) + W_bias c for every token (B, N, D), from a context c (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        self.bias = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b n d"], context: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b n d"]:
        """The injected tokens."""
        return x * self.gate(context)[:, None] + self.bias(context)[:, None]
