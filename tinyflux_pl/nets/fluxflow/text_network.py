"""FluxFlow's text encoder from scratch: word ids -> tokens and a pooled vector, Bezier throughout.

What the document plans in the place of DistilBERT, which it calls temporary.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tinyflux_pl.nets.bezier import FAN
from tinyflux_pl.nets.fluxflow.activations import activation
from tinyflux_pl.nets.fluxflow.stages import TokenBlock
from tinyflux_pl.nets.masked_mean import masked_mean


class BezierTextNetwork(nn.Module):
    """Ids (B, L) with their mask -> tokens (B, L, D) and pooled (B, D)."""

    def __init__(
        self, vocabulary: int, width: int, length: int, layers: int, heads: int, ff_mult: int = 2
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(length, width) / math.sqrt(width))
        self.blocks = nn.ModuleList(TokenBlock(width, heads, ff_mult) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Sequential(
            nn.Linear(width, FAN * width), activation("bezier"), nn.Linear(width, width)
        )

    def forward(
        self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]
    ) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b d"]]:
        """(tokens, pooled); pooled from the mean over the words, without padding."""
        x = self.words(ids) + self.positions[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        tokens = self.norm(x)
        return tokens, self.pool(masked_mean(tokens, mask))
