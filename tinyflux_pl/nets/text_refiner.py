"""Self-attention over text tokens, for encoders whose tokens know nothing of each other."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.nets.attention import attend, split_heads


class TextRefiner(nn.Module):
    """Transformer layers with norms before each branch (Xiong et al. 2020).

    tokens (B, L, D), mask (B, L) True on tokens that are read; ConfigError unless D is a multiple
    of `heads`.
    Cross-attention alone adds up word vectors that know nothing of each other, so it cannot tell
    which of two objects a relation puts on which side; here each word takes in the sentence first.
    """

    def __init__(self, width: int, layers: int, heads: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"tokens of width {width} cannot be divided among {heads} heads",
                where="model.text_layers",
                cure=f"use a text encoder whose width is a multiple of {heads}, or text_layers=0",
            )
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

    def forward(
        self, tokens: Float[Tensor, "b l d"], key_mask: Bool[Tensor, "b 1 1 l"] | None
    ) -> Float[Tensor, "b l d"]:
        query, key, value = split_heads(self.qkv(self.norm1(tokens)), self.heads)
        tokens = tokens + self.proj(attend(query, key, value, key_mask))
        return tokens + self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
