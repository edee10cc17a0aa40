"""The published flow network: noisy tokens, one text vector and a time -> v."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tinyflux_pl.nets.bezier import TrainableBezier
from tinyflux_pl.nets.fluxflow.coordinates import with_coordinates
from tinyflux_pl.nets.fluxflow.reference.processor_block import FlowBlock
from tinyflux_pl.nets.fluxflow.token_context import ContextAttentionMixer, GatedContextInjection

TIMES = 1000  # rows of the time table


class FluxFlowProcessor(nn.Module):
    """Tokens (B, N + 1, D) with their size token, text (B, E), t (B,) -> (B, N + 1, D).

    Published code reads t in [0, 1] and is given whole numbers up to 999, which all select the last
    row. The size token is copied.
    """

    def __init__(
        self,
        d_model: int = 512,
        vae_dim: int = 128,
        embedding_size: int = 1024,
        n_head: int = 8,
        n_layers: int = 10,
        max_hw: int = 1024,
        ctx_tokens: int = 4,
    ) -> None:
        super().__init__()
        self.max_hw, self.ctx_tokens = max_hw, ctx_tokens
        self.vae_to_dmodel = nn.Linear(vae_dim, d_model)
        self.dmodel_to_vae = nn.Linear(d_model, vae_dim)
        self.text_proj = nn.Linear(embedding_size, d_model)
        self.time_embed = nn.Sequential(
            nn.Embedding(TIMES, d_model),
            nn.LayerNorm(d_model),
            TrainableBezier((d_model,)),
            nn.Linear(d_model, embedding_size),
        )
        self.ctx_mixer = ContextAttentionMixer(d_model, max(1, d_model // 128))
        self.context_injection = GatedContextInjection(d_model)
        self.transformer_blocks = nn.ModuleList(FlowBlock(d_model, n_head) for _ in range(n_layers))
        curve_shape = (d_model, 1, 1)
        self.flow_predictor = nn.Sequential(
            nn.Conv2d(d_model, d_model, 5, padding=2),
            TrainableBezier(curve_shape),
            nn.Conv2d(d_model, d_model, 3, padding=1),
        )
        self.context_final = nn.Sequential(
            nn.Conv2d(d_model + 2, d_model, 7, padding=3), TrainableBezier(curve_shape)
        )

    def forward(
        self, packed: Float[Tensor, "b n d"], text: Float[Tensor, "b e"], t: Tensor
    ) -> Float[Tensor, "b n d"]:
        """v of every token."""
        tokens, size = packed[:, :-1], packed[:, -1:]
        x = self.vae_to_dmodel(tokens)
        _, context = self.ctx_mixer(x[:, : self.ctx_tokens])
        index = (t * (TIMES - 1)).long().clamp(0, TIMES - 1)
        text_token = self.text_proj(text + self.time_embed(index))[:, None]
        pillars: list[Tensor] = []
        for block in self.transformer_blocks:
            x, pillars = block(self.context_injection(x, context), text_token, pillars)
            context = context + x.mean(1)
        first = min(self.ctx_tokens, tokens.shape[1])
        pooled = torch.cat([self._pooled(x[i : i + 1], size[i, 0]) for i in range(len(x))])
        out = self.dmodel_to_vae(x)
        out = torch.cat((out[:, :first] + self.dmodel_to_vae(pooled)[:, None], out[:, first:]), 1)
        return torch.cat((out, size), 1)

    def _pooled(self, x: Float[Tensor, "1 n d"], size: Tensor) -> Float[Tensor, "1 d"]:
        """The convolutions over one sample's grid, averaged."""
        height, width = (round(float(v) * self.max_hw) for v in size[:2])
        if height * width > x.shape[1]:
            height = math.isqrt(x.shape[1])
            width = x.shape[1] // height
        grid = x[:, : height * width].transpose(1, 2).unflatten(2, (height, width))
        return self.context_final(with_coordinates(self.flow_predictor(grid))).mean((2, 3))
