"""Memory of sampling, counted on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.app.memory.planned_parts import codec_bytes, text_bytes
from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.core.types import Batch, Conditioning
from tinyflux_pl.engine import memory_plan, outline
from tinyflux_pl.engine.memory_plan import Stage


def encoder_bytes(text: TextEncoder, *, in_turn: bool) -> int:
    """Bytes of the text encoders' weights; of the largest alone if they are loaded one by one."""
    counts = [text_bytes(network, text.dtype) for network in text.skeletons().values()]
    return max(counts, default=0) if in_turn else sum(counts)


@dataclass
class PlannedDrawing:
    """A network on the meta device with codec and text encoder; `batch` gives rows for it.

    `guided`: each picture is evaluated with and without its prompt.
    """

    denoiser: Any
    codec: Any
    text: Any
    batch: Callable[[int], Batch]
    guided: bool
    precision: str

    def activations(self, pictures: int) -> int:
        """Peak activations: of an evaluation, or of decoding all pictures if that is more."""
        rows = pictures * (2 if self.guided else 1)
        return max(self.forward.at(rows), self._decoded.at(pictures))

    def stage(self, name: str, pictures: int) -> Stage:
        """The memory stage in which so many pictures are drawn at once."""
        rows = {
            "weights": memory_plan.weight_bytes(self.denoiser),
            "codec": codec_bytes(self.codec),
            "text encoders": encoder_bytes(self.text, in_turn=self.text.sequential is True),
            "activations": self.activations(pictures),
        }
        return Stage(name, {row: count for row, count in rows.items() if count})

    @cached_property
    def forward(self) -> outline.Linear:
        """Memory of one evaluation without gradients, by number of rows."""
        return outline.forward(self.denoiser, self._evaluate, self.precision)

    def _evaluate(self, rows: int) -> Any:
        batch = self.batch(rows).to("meta")
        cond: Conditioning = batch.conditioning()
        return self.denoiser(batch.latents, batch.latents.new_ones(rows), cond)

    @cached_property
    def _decoded(self) -> outline.Linear:
        from tinyflux_pl.codecs.registry import build_codec

        codec = build_codec(self.codec.name, self.codec.config()).to("meta")
        shape = self.batch(1).latents.shape[1:]

        def decode(count: int) -> Tensor:
            return codec.decode(torch.empty(count, *shape, device="meta"))

        decode(1)  # makes its skeleton: no activation
        return outline.forward(nn.Module(), decode, "32-true")
