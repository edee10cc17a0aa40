"""Self-attention over text tokens, for encoders whose tokens know nothing of each other."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tinyflux_pl.nets.attention import attend, split_heads


class TextRefiner(nn.Module):
    """Transformer layers with norms before each branch, the identity when newly initialised.

    tokens (B, L, D), mask (B, L) True on tokens that are read; D is a multiple of `heads`.
    Cross-attention alone adds word vectors up, so that "a red circle and a blue square" hardly
    differs from "a blue circle and a red square"; here a noun takes in its adjectives first.
    """

    def __init__(self, width: int, layers: int, heads: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))

    def forward(
        self, tokens: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"] | None
    ) -> Float[Tensor, "b l d"]:
        """Tokens (B, L, D) that know their neighbours."""
        key_mask = None if mask is None else mask[:, None, None, :]
        for layer in self.layers:
            tokens = layer(tokens, key_mask)
        return tokens


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)
        for last in (self.proj, self.fc2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self, tokens: Float[Tensor, "b l d"], key_mask: Bool[Tensor, "b 1 1 l"] | None
    ) -> Float[Tensor, "b l d"]:
        query, key, value = split_heads(self.qkv(self.norm1(tokens)), self.heads)
        tokens = tokens + self.proj(attend(query, key, value, key_mask))
        return tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
