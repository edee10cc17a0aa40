"""TinyFlux's transformer blocks, with adaLN modulation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.nets.attention import AttentionPrior, JointAttention, SelfAttention
from tinyflux_pl.nets.modulation import Modulation, split_modulation
from tinyflux_pl.nets.norms import RMSNorm


class AdaptiveNorm(nn.Module):
    """RMS norm with adaLN modulation of one or more residual branches, linear in SiLU(vec)."""

    def __init__(self, hidden: int, branches: int) -> None:
        super().__init__()
        self.branches = branches
        self.linear = nn.Linear(hidden, 3 * branches * hidden)
        self.norm = RMSNorm(hidden)

    def forward(
        self, x: Float[Tensor, "b n d"], vec: Float[Tensor, "b d"]
    ) -> tuple[Tensor, tuple[Modulation, ...]]:
        """x normed and modulated for the first branch, and all modulations.

        `vec` is already activated.
        """
        modulations = split_modulation(self.linear(vec), self.branches)
        first = modulations[0]
        return self.norm.modulated(x, first.shift, first.scale), modulations


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
        self,
        hidden: int,
        heads: int,
        head_dim: int,
        ratio: float,
        gelu: str,
        qk_norm: bool,
        prior: bool,
    ) -> None:
        super().__init__()
        self.img_norm1 = AdaptiveNorm(hidden, branches=2)
        self.txt_norm1 = AdaptiveNorm(hidden, branches=2)
        self.attn = JointAttention(hidden, heads, head_dim, qk_norm, prior)
        self.img_norm2 = RMSNorm(hidden)
        self.txt_norm2 = RMSNorm(hidden)
        self.img_mlp = MLP(hidden, ratio, gelu)
        self.txt_mlp = MLP(hidden, ratio, gelu)

    def forward(
        self,
        txt: Float[Tensor, "b l d"],
        img: Float[Tensor, "b n d"],
        vec: Float[Tensor, "b d"],
        rotation: Tensor,
        key_mask: Tensor | None = None,
        prior: AttentionPrior | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Text and image after this block."""
        img_modulated, (img_attn, img_mlp) = self.img_norm1(img, vec)
        txt_modulated, (txt_attn, txt_mlp) = self.txt_norm1(txt, vec)
        txt_out, img_out = self.attn(txt_modulated, img_modulated, rotation, key_mask, prior)
        txt = torch.addcmul(txt, txt_attn.gate, txt_out)
        img = torch.addcmul(img, img_attn.gate, img_out)

        txt_out = self.txt_mlp(self.txt_norm2.modulated(txt, txt_mlp.shift, txt_mlp.scale))
        img_out = self.img_mlp(self.img_norm2.modulated(img, img_mlp.shift, img_mlp.scale))
        txt = torch.addcmul(txt, txt_mlp.gate, txt_out)
        img = torch.addcmul(img, img_mlp.gate, img_out)
        return txt, img


class SingleBlock(nn.Module):
    """Joint stream of text, then image: gated attention, then an ungated MLP.

    The two are sequential, unlike in Flux.
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        head_dim: int,
        ratio: float,
        gelu: str,
        qk_norm: bool,
        prior: bool,
    ) -> None:
        super().__init__()
        self.norm = AdaptiveNorm(hidden, branches=1)
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
        """The sequence after this block."""
        modulated, (attn,) = self.norm(x, vec)
        x = torch.addcmul(x, attn.gate, self.attn(modulated, rotation, key_mask, prior))
        return x + self.mlp(self.norm2(x))
