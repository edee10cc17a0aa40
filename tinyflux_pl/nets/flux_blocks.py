"""The blocks of black-forest-labs/flux, under its own names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.core.precision import no_autocast
from tinyflux_pl.nets.attention import attend, attend_jointly, split_heads
from tinyflux_pl.nets.modulation import Modulation, split_modulation
from tinyflux_pl.nets.norms import EPS, rms_norm
from tinyflux_pl.nets.rope import apply_rotary


def modulated(
    x: Float[Tensor, "b n d"], shift: Float[Tensor, "b 1 d"], scale: Float[Tensor, "b 1 d"]
) -> Float[Tensor, "b n d"]:
    """(1 + scale) * norm(x) + shift, with a parameter-free norm (DiT, 2212.09748)."""
    return torch.addcmul(shift, F.layer_norm(x, (x.shape[-1],), eps=EPS), 1 + scale)


class Embedder(nn.Module):
    """Linear, SiLU, Linear: a vector (B, K) as a conditioning vector (B, D)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(width, hidden)
        self.out_layer = nn.Linear(hidden, hidden)

    def forward(self, x: Float[Tensor, "b k"]) -> Float[Tensor, "b d"]:
        return self.out_layer(F.silu(self.in_layer(x)))


class ModulationLayer(nn.Module):
    """vec (B, D), already activated -> the modulation of each of `branches` residual branches."""

    def __init__(self, hidden: int, branches: int) -> None:
        super().__init__()
        self.branches = branches
        self.lin = nn.Linear(hidden, 3 * branches * hidden)

    def forward(self, vec: Float[Tensor, "b d"]) -> tuple[Modulation, ...]:
        return split_modulation(self.lin(vec), self.branches)


class HeadScale(nn.Module):
    """RMS norm of each head's query or key, in fp32, with a learned `scale` per channel."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        return rms_norm(x.to(torch.promote_types(x.dtype, torch.float32)), self.scale)


class QueryKeyNorm(nn.Module):
    """The norms of queries and of keys."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.query_norm = HeadScale(head_dim)
        self.key_norm = HeadScale(head_dim)

    def forward(self, qkv: Float[Tensor, "b n c"], heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value (B, h, N, d) of projections side by side (B, N, 3*h*d)."""
        query, key, value = split_heads(qkv, heads)
        return self.query_norm(query), self.key_norm(key), value


class StreamAttention(nn.Module):
    """Query, key, value and output projections of one stream."""

    def __init__(self, hidden: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=qkv_bias)
        self.norm = QueryKeyNorm(hidden // heads)
        self.proj = nn.Linear(hidden, hidden)

    def query_key_value(self, x: Float[Tensor, "b n d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Normed query and key, and value, each (B, h, N, d)."""
        return self.norm(self.qkv(x), self.heads)


class FluxDoubleBlock(nn.Module):
    """Target and condition streams with their own weights, joined in attention."""

    def __init__(self, hidden: int, heads: int, mlp_width: int, qkv_bias: bool) -> None:
        super().__init__()
        self.img_mod = ModulationLayer(hidden, branches=2)
        self.txt_mod = ModulationLayer(hidden, branches=2)
        self.img_attn = StreamAttention(hidden, heads, qkv_bias)
        self.txt_attn = StreamAttention(hidden, heads, qkv_bias)
        self.img_mlp = _mlp(hidden, mlp_width)
        self.txt_mlp = _mlp(hidden, mlp_width)

    def forward(
        self,
        img: Float[Tensor, "b n d"],
        txt: Float[Tensor, "b l d"],
        vec: Float[Tensor, "b d"],
        rotation: Tensor,
        key_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Target and condition after the block.

        `rotation` and `key_mask` cover the condition, then the target.
        """
        img_attn, img_mlp = self.img_mod(vec)
        txt_attn, txt_mlp = self.txt_mod(vec)
        txt_out, img_out = attend_jointly(
            self.txt_attn.query_key_value(modulated(txt, txt_attn.shift, txt_attn.scale)),
            self.img_attn.query_key_value(modulated(img, img_attn.shift, img_attn.scale)),
            rotation,
            key_mask,
        )
        img = torch.addcmul(img, img_attn.gate, self.img_attn.proj(img_out))
        txt = torch.addcmul(txt, txt_attn.gate, self.txt_attn.proj(txt_out))

        img_out = self.img_mlp(modulated(img, img_mlp.shift, img_mlp.scale))
        txt_out = self.txt_mlp(modulated(txt, txt_mlp.shift, txt_mlp.scale))
        img = torch.addcmul(img, img_mlp.gate, img_out)
        txt = torch.addcmul(txt, txt_mlp.gate, txt_out)
        return img, txt


class FluxSingleBlock(nn.Module):
    """One stream of condition then target: attention and MLP side by side, behind one gate."""

    def __init__(self, hidden: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.widths = (3 * hidden, mlp_width)
        self.linear1 = nn.Linear(hidden, 3 * hidden + mlp_width)
        self.linear2 = nn.Linear(hidden + mlp_width, hidden)
        self.norm = QueryKeyNorm(hidden // heads)
        self.modulation = ModulationLayer(hidden, branches=1)

    def forward(
        self,
        x: Float[Tensor, "b m d"],
        vec: Float[Tensor, "b d"],
        rotation: Tensor,
        key_mask: Tensor | None = None,
    ) -> Float[Tensor, "b m d"]:
        """The sequence after this block."""
        (branch,) = self.modulation(vec)
        qkv, mlp = self.linear1(modulated(x, branch.shift, branch.scale)).split(self.widths, -1)
        query, key, value = self.norm(qkv, self.heads)
        out = attend(apply_rotary(query, rotation), apply_rotary(key, rotation), value, key_mask)
        out = self.linear2(torch.cat((out, F.gelu(mlp, approximate="tanh")), -1))
        return torch.addcmul(x, branch.gate, out)


class FinalLayer(nn.Module):
    """The last modulated norm and the projection to target tokens."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * hidden))

    def forward(
        self, x: Float[Tensor, "b n d"], vec: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b n c"]:
        """Tokens in the dtype of the weights, also under autocast; `vec` is not activated yet."""
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, -1)
        last = modulated(x, shift, scale)
        with no_autocast(last.device):
            return self.linear(last.to(self.linear.weight.dtype))


def _mlp(hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(hidden, width), nn.GELU(approximate="tanh"), nn.Linear(width, hidden)
    )
