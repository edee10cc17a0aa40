"""FluxFlow's flow network: noisy latents, a time, words and their pooled vector -> a prediction."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tinyflux_pl.nets.embeddings import ScalarEmbedder
from tinyflux_pl.nets.fluxflow.processor_block import FlowBlock
from tinyflux_pl.nets.fluxflow.stages import map_of, tokens_of
from tinyflux_pl.nets.position_ids import grid_ids
from tinyflux_pl.nets.rope import RotaryEmbedding

TIME_SCALE = 1000.0


class FluxFlowProcessor(nn.Module):
    """Latents (B, C, h, w) and a time (B,) from 0 at noise to 1 at data -> (B, C, h, w).

    One token a cell, turned by row and column. All words are read, padding never. The context of
    every block is the embedded time plus the pooled text.
    """

    def __init__(
        self,
        channels: int,
        text_width: int,
        pooled_width: int,
        width: int = 128,
        heads: int = 4,
        layers: int = 12,
    ) -> None:
        super().__init__()
        self.x_in = nn.Linear(channels, width)
        self.text_in = nn.Linear(text_width, width)
        self.pooled_in = nn.Linear(pooled_width, width)
        self.time_in = ScalarEmbedder(width, TIME_SCALE)
        per_axis = width // heads // 2
        self.rotary = RotaryEmbedding((per_axis, per_axis))
        self.blocks = nn.ModuleList(FlowBlock(width, heads) for _ in range(layers))
        self.norm_out = nn.LayerNorm(width)
        self.x_out = nn.Linear(width, channels)
        nn.init.zeros_(self.x_out.weight)
        nn.init.zeros_(self.x_out.bias)
        self.checkpointing = False

    def forward(
        self,
        latents: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"],
        words: Float[Tensor, "b l e"],
        mask: Bool[Tensor, "b l"],
        pooled: Float[Tensor, "b p"],
    ) -> Float[Tensor, "b c h w"]:
        """The prediction."""
        size = latents.shape[-2:]
        x = self.x_in(tokens_of(latents))
        context = nn.functional.silu(self.time_in(time) + self.pooled_in(pooled))
        text = self.text_in(words)
        rotation = self.rotary(grid_ids(*size, x.device)[:, 1:])
        for block in self.blocks:
            arguments = (x, context, text, mask, rotation)
            if self.checkpointing:
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)
        return map_of(self.x_out(self.norm_out(x)), size)
