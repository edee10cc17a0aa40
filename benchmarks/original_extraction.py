"""The original's extraction of Lune and Sol, as its documents describe it; a peer to time against.

Lune: a hook on the middle block of a whole UNet pass. Sol: a pass a bucket whose attention keeps
every self-attention map; statistics are taken from the maps afterwards. Written anew from
its description; only speed and memory are compared, its noise and its clock are not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.types import Conditioning
from tinyflux_pl.denoisers.unet import UNetDenoiser

SOL_BATCH = 4


class MapKeepingAttention:
    """An attention processor that materialises softmax(q k) and keeps that of self-attention."""

    def __init__(self) -> None:
        self.maps: list[Tensor] = []

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(source))
        value = attn.head_to_batch_dim(attn.to_v(source))
        weights = attn.get_attention_scores(query, key, attention_mask)
        if encoder_hidden_states is None:
            self.maps.append(weights.clone())
        attended = attn.batch_to_head_dim(torch.bmm(weights, value))
        return attn.to_out[1](attn.to_out[0](attended))


def lune(denoiser: UNetDenoiser, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    """Spatial mean (B, E) of the middle block, after a whole pass."""
    outputs: list[Tensor] = []
    block = denoiser.unet.mid_block
    assert block is not None
    hook = block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    denoiser(x, t, cond)
    hook.remove()
    return outputs[0].mean((2, 3))


def sol(denoiser: UNetDenoiser, x: Tensor, t: Tensor, cond: Conditioning) -> tuple[Tensor, Tensor]:
    """Statistics (B, 3) and map (B, 8, 8) of one batch at one bucket."""
    keeper, before = MapKeepingAttention(), dict(denoiser.unet.attn_processors)
    denoiser.unet.set_attn_processor(keeper)
    denoiser(x, t, cond)
    denoiser.unet.set_attn_processor(before)
    statistics, maps = [], []
    for kept in keeper.maps:
        heads = len(kept) // len(x)
        layer_statistics, layer_map = _of_layer(kept.unflatten(0, (-1, heads)).mean(1).float())
        statistics.append(layer_statistics)
        maps.append(layer_map)
    total = torch.stack(maps).mean(0)
    return torch.stack(statistics).mean(0), total / total.sum((1, 2), keepdim=True)


def _of_layer(p: Tensor) -> tuple[Tensor, Tensor]:
    count = p.shape[-1]
    side = round(count**0.5)
    logarithm = p.clamp_min(1e-8).log()
    entropy = (-(p * logarithm).sum(-1).mean(-1) / torch.tensor(float(count)).log()).clamp(0, 1)
    rows = torch.arange(side, device=p.device, dtype=torch.float32)
    positions = torch.stack(torch.meshgrid(rows, rows, indexing="ij"), -1).flatten(0, 1)
    distance = torch.cdist(positions, positions)
    locality = (1 - (p * distance).sum(-1).mean(-1) / distance.max()).clamp(0, 1)
    importance = p.sum(1).unflatten(-1, (side, side))[:, None]
    resized = torch.nn.functional.interpolate(importance, (8, 8), mode="bilinear")[:, 0]
    return torch.stack([locality, entropy, 1 - entropy], -1), resized
