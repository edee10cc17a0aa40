"""Attention over text and image tokens, with an optional prior on which image tokens matter."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tinyflux_pl.nets.norms import rms_norm
from tinyflux_pl.nets.rope import apply_rotary


class AttentionPrior(NamedTuple):
    """An expert's prior on attention.

    Temperature (B, h or 1) and importance of each image token (B, N).
    """

    temperature: Tensor
    importance: Tensor


class HeadNorm(nn.Module):
    """RMS norm of each head's query or key, in fp32, with a learned scale per channel."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        return rms_norm(x.to(torch.promote_types(x.dtype, torch.float32)), self.weight)


def split_heads(qkv: Float[Tensor, "b n c"], heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, 3*h*d) in the order query, key, value -> three of (B, h, N, d)."""
    query, key, value = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return query, key, value


def attend(
    query: Float[Tensor, "b h n d"],
    key: Float[Tensor, "b h m d"],
    value: Float[Tensor, "b h m d"],
    key_mask: Bool[Tensor, "b 1 1 m"] | None = None,
) -> Float[Tensor, "b n c"]:
    """softmax(q k^T / sqrt(d)) v with the heads merged, in the dtype of `value`.

    On CPU it runs in fp32, where the fused kernel is three times faster than in bf16.
    """
    dtype = value.dtype
    if value.device.type == "cpu":
        wide = torch.promote_types(dtype, torch.float32)
        with torch.autocast("cpu", enabled=False):
            out = F.scaled_dot_product_attention(
                query.to(wide), key.to(wide), value.to(wide), attn_mask=key_mask
            )
    else:
        out = F.scaled_dot_product_attention(
            query.to(dtype), key.to(dtype), value, attn_mask=key_mask
        )
    return out.transpose(1, 2).flatten(2).to(dtype)


def attend_jointly(
    txt: tuple[Tensor, Tensor, Tensor],
    img: tuple[Tensor, Tensor, Tensor],
    rotation: Tensor,
    key_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Joint attention over text and image: text (B, L, C) and image (B, N, C), text first.

    Each stream gives (query, key, value), already rotated.
    """
    query, key, value = (torch.cat(pair, 2) for pair in zip(txt, img, strict=True))
    out = attend(apply_rotary(query, rotation), apply_rotary(key, rotation), value, key_mask)
    txt_out, img_out = out.split((txt[0].shape[2], img[0].shape[2]), 1)
    return txt_out, img_out


class PriorGain(nn.Conv2d):
    """Importance (B, N) -> gain exp(clamp(w_h * importance + b_h, -2, 2)) per head.

    A 1 x 1 convolution by name and shape (h, 1, 1, 1), as published weights hold it; zero at first,
    so gain 1.
    """

    def __init__(self, heads: int) -> None:
        super().__init__(1, heads, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(cast(Tensor, self.bias))

    # its input is not a convolution's, and is always given by position
    def forward(self, importance: Float[Tensor, "b n"]) -> Float[Tensor, "b h n 1"]:  # ty: ignore[lost-keyword-for-regular-parameter]
        weight, bias = (
            self.weight.view(1, -1, 1).float(),
            cast(Tensor, self.bias).view(1, -1, 1).float(),
        )
        return (importance[:, None] * weight + bias).clamp(-2.0, 2.0).exp()[..., None]


class JointAttention(nn.Module):
    """Two streams, each with its own projections, attending over both: keys are text, then image.

    A prior multiplies image keys by their gain and image queries by gain / temperature, which
    equals scaling the logits, so that one fused attention serves both streams. Text queries keep
    temperature 1.
    """

    txt_qkv: nn.Linear
    txt_out: nn.Linear
    img_qkv: nn.Linear
    img_out: nn.Linear
    txt_q_norm: HeadNorm | nn.Identity
    txt_k_norm: HeadNorm | nn.Identity
    img_q_norm: HeadNorm | nn.Identity
    img_k_norm: HeadNorm | nn.Identity

    def __init__(self, hidden: int, heads: int, head_dim: int, qk_norm: bool, prior: bool) -> None:
        super().__init__()
        self.heads, inner = heads, heads * head_dim
        for stream in ("txt", "img"):
            setattr(self, f"{stream}_qkv", nn.Linear(hidden, 3 * inner, bias=False))
            setattr(self, f"{stream}_out", nn.Linear(inner, hidden, bias=False))
            for part in ("q", "k"):
                setattr(
                    self, f"{stream}_{part}_norm", HeadNorm(head_dim) if qk_norm else nn.Identity()
                )
        if prior:
            self.spatial_to_mod = PriorGain(heads)

    def forward(
        self,
        txt: Float[Tensor, "b l c"],
        img: Float[Tensor, "b n c"],
        rotation: Tensor,
        key_mask: Tensor | None = None,
        prior: AttentionPrior | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attended text (B, L, D) and image (B, N, D)."""
        txt_q, txt_k, txt_v = split_heads(self.txt_qkv(txt), self.heads)
        img_q, img_k, img_v = split_heads(self.img_qkv(img), self.heads)
        txt_q, txt_k, img_q = self.txt_q_norm(txt_q), self.txt_k_norm(txt_k), self.img_q_norm(img_q)
        img_k = self.img_k_norm(img_k)
        if prior is not None:
            gain = self.spatial_to_mod(prior.importance)
            img_q, img_k = img_q * (gain / prior.temperature[..., None, None]), img_k * gain
        txt_out, img_out = attend_jointly(
            (txt_q, txt_k, txt_v), (img_q, img_k, img_v), rotation, key_mask
        )
        return self.txt_out(txt_out), self.img_out(img_out)


class SelfAttention(nn.Module):
    """Text and image as one sequence; a prior tempers all queries and gains only image tokens."""

    def __init__(self, hidden: int, heads: int, head_dim: int, qk_norm: bool, prior: bool) -> None:
        super().__init__()
        self.heads, inner = heads, heads * head_dim
        self.qkv = nn.Linear(hidden, 3 * inner, bias=False)
        self.out_proj = nn.Linear(inner, hidden, bias=False)
        self.q_norm = HeadNorm(head_dim) if qk_norm else nn.Identity()
        self.k_norm = HeadNorm(head_dim) if qk_norm else nn.Identity()
        if prior:
            self.spatial_to_mod = PriorGain(heads)

    def forward(
        self,
        x: Float[Tensor, "b m c"],
        rotation: Tensor,
        key_mask: Tensor | None = None,
        prior: AttentionPrior | None = None,
    ) -> Float[Tensor, "b m c"]:
        """Attended tokens (B, L + N, D)."""
        query, key, value = split_heads(self.qkv(x), self.heads)
        query, key = self.q_norm(query), self.k_norm(key)
        if prior is not None:
            length = x.shape[1] - prior.importance.shape[1]
            gain = F.pad(self.spatial_to_mod(prior.importance), (0, 0, length, 0), value=1.0)
            query, key = query * (gain / prior.temperature[..., None, None]), key * gain
        return self.out_proj(
            attend(apply_rotary(query, rotation), apply_rotary(key, rotation), value, key_mask)
        )
