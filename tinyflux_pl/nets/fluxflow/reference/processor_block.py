"""A block of the published flow network: attention, four pillars, and one Bezier activation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.nets.attention import attend
from tinyflux_pl.nets.bezier import BezierActivation

PILLAR_LAYERS = 3


class PublishedRotary(nn.Module):
    """The published position code: sines and cosines interleaved, then applied half by half.

    It is no rotation: the norms of queries and keys change, and scores depend on absolute
    positions.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        rates = 1.0 / 10000 ** (torch.arange(head_dim // 2) / (head_dim // 2))
        self.register_buffer("inv_freq", rates)

    def forward(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        """Queries or keys at positions 0 to N - 1."""
        positions = torch.arange(x.shape[2], device=x.device)
        angles = positions[:, None] * self.inv_freq
        sin, cos = (
            each.repeat_interleave(2, -1).to(x.dtype) for each in (angles.sin(), angles.cos())
        )
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat((-second, first), -1) * sin


class Attention(nn.Module):
    """Queries from one sequence, keys and values from another, in one projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.kv_proj = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b n d"], context: Tensor, rotary: nn.Module | None
    ) -> Float[Tensor, "b n d"]:
        """softmax(q k^T / sqrt(d)) v."""
        query = self.q_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.kv_proj(context).chunk(2, -1)
        key, value = (v.unflatten(-1, (self.heads, -1)).transpose(1, 2) for v in (key, value))
        if rotary is not None:
            query, key = rotary(query), rotary(key)
        return self.out_proj(attend(query, key, value))


def _pillar(width: int) -> nn.Sequential:
    layers = (nn.Sequential(nn.Linear(width, width), nn.SiLU()) for _ in range(PILLAR_LAYERS))
    return nn.Sequential(*layers)


class FlowBlock(nn.Module):
    """x (B, N, d) and the four pillars of the block before -> x and its own pillars.

    The activation groups five adjacent channels of the concatenation, as published: a value's
    position and control points come from unrelated channels.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.self_attn, self.cross_attn = Attention(width, heads), Attention(width, heads)
        self.rotary_pe = PublishedRotary(width // heads)
        self.p0, self.p1, self.p2, self.p3 = (_pillar(width) for _ in range(4))
        self.ffn = nn.Sequential(nn.Linear(width, width))
        self.activation = BezierActivation()

    def forward(
        self, x: Float[Tensor, "b n d"], text: Float[Tensor, "b 1 d"], before: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """(x, pillars); `before` is empty for the first block."""
        normed = self.norm1(x)
        x = x + self.self_attn(normed, normed, self.rotary_pe)
        x = x + self.cross_attn(self.norm2(x), self.norm2(text), None)
        gate = x.sigmoid()
        inputs = [gate * each for each in before] or [gate] * 4
        layers = (self.p0, self.p1, self.p2, self.p3)
        pillars = [layer(value) for layer, value in zip(layers, inputs, strict=True)]
        x = x + self.ffn(self.norm3(x))
        return self.activation(torch.cat((x, *pillars), -1)), pillars
