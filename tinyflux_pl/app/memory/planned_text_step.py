"""Activations of text encoders in a step with gradients through them (textual inversion)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.engine import outline
from tinyflux_pl.text.learned_words import WordReader


def text_activations(text: WordReader, precision: str) -> outline.Linear:
    """Peak bytes of all encoders, forward and back, by captions of full length.

    What one keeps for the way back stays while the others, and then the denoiser, compute.
    """
    lengths = text.tokens_at_once()
    counts = [
        _counted(network, lengths[key], precision) for key, network in text.skeletons().items()
    ]
    return outline.Linear(sum(c.first for c in counts), sum(c.second for c in counts))


def _counted(network: Any, length: int, precision: str) -> outline.Linear:
    """Memory of one encoder, of which only the input vectors have a gradient."""
    network.requires_grad_(False)
    anchor = torch.zeros((), device="meta", requires_grad=True)

    def learnt(module: nn.Module, inputs: Any, vectors: Tensor) -> Tensor:
        return vectors + anchor

    def loss(samples: int) -> Tensor:
        ids = torch.zeros(samples, length, dtype=torch.long, device="meta")
        output = network(input_ids=ids)  # without a mask, whose values transformers would look at
        return output.last_hidden_state.float().sum()

    # of T5 on the meta device the table that is read is another module than the one that is named
    shape = network.get_input_embeddings().weight.shape
    tables = [
        m for m in network.modules() if isinstance(m, nn.Embedding) and m.weight.shape == shape
    ]
    hooks = [table.register_forward_hook(learnt) for table in tables]
    try:
        return outline.step(network, loss, precision)
    finally:
        for hook in hooks:
            hook.remove()
