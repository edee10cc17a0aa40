"""A block of the flow network: attention among cells, attention to words, a Bezier layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tinyflux_pl.nets.attention import HeadNorm, attend
from tinyflux_pl.nets.bezier import BezierActivation
from tinyflux_pl.nets.fluxflow.token_context import GatedContextInjection
from tinyflux_pl.nets.rope import apply_rotary

PILLARS = 4  # control points
PILLAR_LAYERS = 3


class Attention(nn.Module):
    """Queries from one sequence, keys and values from another, normalised head by head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.kv_proj = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out_proj = nn.Linear(width, width)
        self.norm_q, self.norm_k = HeadNorm(width // heads), HeadNorm(width // heads)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m d"],
        rotation: Tensor | None = None,
        mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """softmax(q k^T / sqrt(d)) v, with `rotation` of q and k; `mask` is True on real keys."""
        query = self.q_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.kv_proj(context).chunk(2, -1)
        )
        query, key = self.norm_q(query), self.norm_k(key)
        if rotation is not None:
            query, key = apply_rotary(query, rotation), apply_rotary(key, rotation)
        keys = None if mask is None else mask[:, None, None]
        return self.out_proj(attend(query, key, value, keys))


class PillarMLP(nn.Module):
    """Tokens -> a position and, from four pillars of three layers, its control points -> B.

    The pillars of a layer are one batched product.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.position = nn.Linear(width, width)
        scale = width**-0.5
        shape = (PILLAR_LAYERS, PILLARS, width, width)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-scale, scale))
        self.bias = nn.Parameter(torch.zeros(PILLAR_LAYERS, PILLARS, 1, width))
        self.activation = BezierActivation(planar=True)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """The layer's output."""
        points = x.flatten(0, 1).expand(PILLARS, -1, -1)
        for weight, bias in zip(self.weight, self.bias, strict=True):
            points = F.silu(torch.matmul(points, weight.to(points.dtype)) + bias.to(points.dtype))
        planes = points.transpose(0, 1).flatten(1).view(*x.shape[:2], -1)
        return self.out_proj(self.activation(torch.cat((self.position(x), planes), -1)))


class FlowBlock(nn.Module):
    """Tokens (B, N, D) with a context vector (B, D) and words (B, L, D) -> tokens.

    The context gates and shifts what each branch reads, never the residual stream itself.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.injections = nn.ModuleList(GatedContextInjection(width) for _ in range(3))
        self.text_norm = nn.LayerNorm(width)
        self.self_attn, self.cross_attn = Attention(width, heads), Attention(width, heads)
        self.mlp = PillarMLP(width)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        context: Float[Tensor, "b d"],
        words: Float[Tensor, "b l d"],
        mask: Bool[Tensor, "b l"],
        rotation: Tensor,
    ) -> Float[Tensor, "b n d"]:
        """Three residual branches."""

        def read(index: int) -> Tensor:
            return self.injections[index](self.norms[index](x), context)

        cells = read(0)
        x = x + self.self_attn(cells, cells, rotation)
        x = x + self.cross_attn(read(1), self.text_norm(words), mask=mask)
        return x + self.mlp(read(2))
