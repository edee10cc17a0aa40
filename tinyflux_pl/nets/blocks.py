"""Transformer blocks told by a vector how to shift, scale and gate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.nets.attention import AttentionPrior, JointAttention, SelfAttention
from tinyflux_pl.nets.norms import RMSNorm


class AdaptiveNorm(nn.Module):
    """RMS norm whose shift and scale, and further vectors, are linear in SiLU(vec)."""

    def __init__(self, hidden: int, vectors: int) -> None:
        super().__init__()
        self.vectors = vectors
        self.linear = nn.Linear(hidden, vectors * hidden)
        self.norm = RMSNorm(hidden)

    def forward(self, x: Float[Tensor, "b n d"], vec: Float[Tensor, "b d"]) -> tuple[Tensor, ...]:
        """Modulated x, then the vectors after shift and scale, each (B, 1, D); `vec` comes activated."""
        shift, scale, *rest = self.linear(vec)[:, None].chunk(self.vectors, -1)
        return self.norm.modulated(x, shift, scale), *rest


class MLP(nn.Module):
    """Linear, GELU (exact, or approximated by "tanh"), Linear."""

    def __init__(self, hidden: int, ratio: float, approximate: str) -> None:
        super().__init__()
        self.approximate = approximate
        self.fc1 = nn.Linear(hidden, int(hidden * ratio))
        self.fc2 = nn.Linear(int(hidden * ratio), hidden)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class DoubleBlock(nn.Module):
    """Text and image streams with their own weights, joined in attention."""

    def __init__(
        self, hidden: int, heads: int, head_dim: int, ratio: float, gelu: str, qk_norm: bool, prior: bool
    ) -> None:
        super().__init__()
        self.img_norm1, self.txt_norm1 = AdaptiveNorm(hidden, 6), AdaptiveNorm(hidden, 6)
        self.attn = JointAttention(hidden, heads, head_dim, qk_norm, prior)
        self.img_norm2, self.txt_norm2 = RMSNorm(hidden), RMSNorm(hidden)
        self.img_mlp, self.txt_mlp = MLP(hidden, ratio, gelu), MLP(hidden, ratio, gelu)

    def forward(
        self,
        txt: Float[Tensor, "b l d"],
        img: Float[Tensor, "b n d"],
        vec: Float[Tensor, "b d"],
        rotation: Tensor,
        key_mask: Tensor | None = None,
        prior: AttentionPrior | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both streams, one block further; the adaptive vectors are shift, scale, gate twice."""
        img_in, img_gate, img_shift, img_scale, img_gate2 = self.img_norm1(img, vec)
        txt_in, txt_gate, txt_shift, txt_scale, txt_gate2 = self.txt_norm1(txt, vec)
        txt_out, img_out = self.attn(txt_in, img_in, rotation, key_mask, prior)
        txt, img = torch.addcmul(txt, txt_gate, txt_out), torch.addcmul(img, img_gate, img_out)
        txt_out = self.txt_mlp(self.txt_norm2.modulated(txt, txt_shift, txt_scale))
        img_out = self.img_mlp(self.img_norm2.modulated(img, img_shift, img_scale))
        return torch.addcmul(txt, txt_gate2, txt_out), torch.addcmul(img, img_gate2, img_out)


class SingleBlock(nn.Module):
    """One stream of text then image: gated attention, then an ungated MLP (sequential, unlike Flux)."""

    def __init__(
        self, hidden: int, heads: int, head_dim: int, ratio: float, gelu: str, qk_norm: bool, prior: bool
    ) -> None:
        super().__init__()
        self.norm = AdaptiveNorm(hidden, 3)
        self.attn = SelfAttention(hidden, heads, head_dim, qk_norm, prior)
        self.mlp = MLP(hidden, ratio, gelu)
        self.norm2 = RMSNorm(hidden)

    def forward(
        self,
        x: Float[Tensor, "b m d"],
        vec: Float[Tensor, "b d"],
        rotation: Tensor,
        key_mask: Tensor | None = None,
        prior: AttentionPrior | None = None,
    ) -> Float[Tensor, "b m d"]:
        """The sequence, one block further."""
        normed, gate = self.norm(x, vec)
        x = torch.addcmul(x, gate, self.attn(normed, rotation, key_mask, prior))
        return x + self.mlp(self.norm2(x))
