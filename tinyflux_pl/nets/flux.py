"""Flux over sequences: target tokens from condition tokens, each with its width and positions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num, Shaped
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.nets.embeddings import sinusoid
from tinyflux_pl.nets.flux_blocks import (
    Embedder,
    FinalLayer,
    FluxDoubleBlock,
    FluxSingleBlock,
    ModulationLayer,
)
from tinyflux_pl.nets.flux_params import FluxParams
from tinyflux_pl.nets.recompute import recomputed
from tinyflux_pl.nets.rope import RotaryEmbedding

__all__ = ["Flux", "FluxParams"]

TIME_WIDTH = 256  # of the sinusoid of a time or of a guidance


class Flux(nn.Module):
    """The network of black-forest-labs/flux, with its state keys, and with padding masks.

    A new network has closed gates and predicts zero (adaLN-Zero), so that it can be trained from
    the start. Set `gradient_checkpointing = True` to recompute each block in the backward pass.
    """

    def __init__(self, params: FluxParams) -> None:
        super().__init__()
        self.params, p = params, params
        self.gradient_checkpointing = False
        hidden, heads = p.hidden_size, p.num_heads
        self.img_in = nn.Linear(p.in_channels, hidden)
        self.txt_in = nn.Linear(p.context_in_dim, hidden)
        self.time_in = Embedder(TIME_WIDTH, hidden)
        self.vector_in = Embedder(p.vec_in_dim, hidden)
        if p.guidance_embed:
            self.guidance_in = Embedder(TIME_WIDTH, hidden)
        self.pe_embedder = RotaryEmbedding(tuple(p.axes_dim), float(p.theta))
        self.double_blocks = nn.ModuleList(
            FluxDoubleBlock(hidden, heads, p.mlp_width, p.qkv_bias) for _ in range(p.depth)
        )
        self.single_blocks = nn.ModuleList(
            FluxSingleBlock(hidden, heads, p.mlp_width) for _ in range(p.depth_single_blocks)
        )
        self.final_layer = FinalLayer(hidden, p.out_channels)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        gates = [m.lin for m in self.modules() if isinstance(m, ModulationLayer)]
        for linear in (
            *gates,
            self.final_layer.linear,
            cast(nn.Linear, self.final_layer.adaLN_modulation[1]),
        ):
            nn.init.zeros_(linear.weight)

    def forward(
        self,
        img: Float[Tensor, "b n c"],
        img_ids: Num[Tensor, "*bi n axes"],
        txt: Float[Tensor, "b l d"],
        txt_ids: Num[Tensor, "*bt l axes"],
        timesteps: Float[Tensor, " b"],
        y: Float[Tensor, "b p"] | None = None,
        guidance: Float[Tensor, " b"] | None = None,
        img_mask: Shaped[Tensor, "#b n"] | None = None,
        txt_mask: Shaped[Tensor, "#b l"] | None = None,
    ) -> Float[Tensor, "b n o"]:
        """The prediction for each target token `img`, given the condition tokens `txt`.

        timesteps are 0 at data and 1 at noise. Ids are read in fp32 whatever their type, one set a
        sample or one for all, (N, axes) too. Masked tokens (False or 0) neither attend nor are
        attended to; their output is 0. Without guidance_embed `guidance` is not read, as in the
        original. Raises ConfigError for ids of another number of columns.
        """
        dtype = self.img_in.weight.dtype
        img_mask, txt_mask = (
            None if mask is None else mask.bool() for mask in (img_mask, txt_mask)
        )
        rotation = self._rotation(img_ids, txt_ids)
        img = _zero_padding(img.to(dtype), img_mask)
        txt = _zero_padding(txt.to(dtype), txt_mask)
        vec = self._conditioning(timesteps, y, guidance)
        key_mask = _key_mask(img, txt, img_mask, txt_mask)
        # The residual stream stays in the parameters' dtype under autocast: forty bf16 sums lose
        # too much.
        img = self.img_in(img).to(dtype)
        txt = self.txt_in(txt).to(dtype)
        vec_act = F.silu(vec)
        for block in cast(Iterable[FluxDoubleBlock], self.double_blocks):
            img, txt = self._run(block, img, txt, vec_act, rotation, key_mask)
        tokens = torch.cat((txt, img), 1)
        for block in cast(Iterable[FluxSingleBlock], self.single_blocks):
            tokens = self._run(block, tokens, vec_act, rotation, key_mask)
        return _zero_padding(self.final_layer(tokens[:, txt.shape[1] :], vec), img_mask)

    def _conditioning(self, timesteps: Tensor, y: Tensor | None, guidance: Tensor | None) -> Tensor:
        """The conditioning vector (B, D) from time, guidance and pooled y where they are read."""
        dtype = self.img_in.weight.dtype
        vec = self.time_in(embedded(timesteps).to(dtype))
        if self.params.guidance_embed:
            if guidance is None:
                cure = "give guidance (B,), the strength it was distilled for, such as 3.5"
                raise ConfigError(
                    "this network needs a guidance value and got none", where="Flux", cure=cure
                )
            vec = vec + self.guidance_in(embedded(guidance).to(dtype))
        return (vec if y is None else vec + self.vector_in(y.to(dtype))).to(dtype)

    def _rotation(self, img_ids: Tensor, txt_ids: Tensor) -> Tensor:
        """The table over condition, then target: (B, 1, L + N, d/2, 2), or one for all samples."""
        axes = len(self.params.axes_dim)
        for name, ids in (("img_ids", img_ids), ("txt_ids", txt_ids)):
            if ids.shape[-1] != axes:
                raise ConfigError(
                    f"{name} has {ids.shape[-1]} columns, the network {axes} axes "
                    f"{list(self.params.axes_dim)}",
                    where="Flux",
                    cure=f"give ids of {axes} columns, or a network whose axes_dim has one width "
                    "for each column",
                )
        img_ids, txt_ids = (ids[None] if ids.dim() == 2 else ids for ids in (img_ids, txt_ids))
        batch = max(len(img_ids), len(txt_ids))
        # fp32 first: bf16 cannot tell neighbours apart past 256
        ids = torch.cat(
            (txt_ids.float().expand(batch, -1, -1), img_ids.float().expand(batch, -1, -1)), 1
        )
        return self.pe_embedder(ids)[:, None]

    def _run(self, block: nn.Module, *inputs: Any) -> Any:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return recomputed(block, *inputs)
        return block(*inputs)


def embedded(value: Float[Tensor, " b"]) -> Float[Tensor, "b k"]:
    """The sinusoid of a time or a guidance: 1000 * value, cosines first, fp32."""
    return sinusoid(value, TIME_WIDTH, 1000.0, sin_first=False, last_frequency_included=False)


def _zero_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x.masked_fill(~mask[..., None], 0)


def _key_mask(
    img: Tensor, txt: Tensor, img_mask: Tensor | None, txt_mask: Tensor | None
) -> Tensor | None:
    """(B, 1, 1, L + N), True for keys that may be attended to; None: all."""
    if img_mask is None and txt_mask is None:
        return None
    sides = ((txt, txt_mask), (img, img_mask))
    masks = [
        x.new_ones(x.shape[:2], dtype=torch.bool) if m is None else m.expand(x.shape[:2])
        for x, m in sides
    ]
    return torch.cat(masks, 1)[:, None, None]
