"""An objective that encodes captions in each step, so that learned words get gradients."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.core.types import Batch, TextEmbeddings
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.text.learned_words import WordReader


class WordInversion(FlowObjective):
    """The objective `run`, with the batch's captions encoded by an encoder with trainable words.

    The text of the cache is left: it was encoded before the words meant anything. On the meta
    device, where no text can be read, that of the batch stands for it.
    """

    def __init__(self, run: FlowObjective, text: WordReader) -> None:
        vars(self).update(vars(run))
        self.run, self.text = run, text

    def loss(self, denoiser: Denoiser, batch: Batch, step: int) -> dict[str, Tensor]:
        """Named, weighted scalar terms of `run` for one training step."""
        terms = self.run.loss(denoiser, self._encoded(batch), step)
        self.velocity_share = self.run.velocity_share
        return terms

    @torch.no_grad()
    def by_sample(self, denoiser: Denoiser, batch: Batch, step: int) -> dict[int, dict[str, float]]:
        """Sample id -> weighted terms of `run`."""
        return self.run.by_sample(denoiser, self._encoded(batch), step)

    def _encoded(self, batch: Batch) -> Batch:
        device = batch.latents.device
        if batch.latents.is_meta:
            return replace(batch, text=self._anchored(batch.text, 1.0))
        text = self.text.to(device).encode(batch.captions).trimmed().to(device)
        if not text.tokens.requires_grad:  # no caption of the batch has a word: it learns nothing
            text = self._anchored(text, 0.0)
        return replace(batch, text=text)

    def _anchored(self, text: TextEmbeddings, factor: float) -> TextEmbeddings:
        """The text plus a zero term that connects the gradient to the words."""
        tables = [table for word in self.text.words for table in word.parameters()]
        return replace(text, tokens=text.tokens + factor * sum(table.sum() for table in tables))
