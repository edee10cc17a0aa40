"""Recorded inputs of the linear layers of a network's blocks: maxima, and a few rows."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 4  # kept of each forward pass, evenly spaced over its tokens


@dataclass
class LayerRecord:
    """max|X| (K,) by input channel, and rows of X (ROWS, K), of each forward pass; fp32, CPU."""

    maxima: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)

    def add(self, x: Tensor) -> None:
        """Add the input (..., K) of a forward pass."""
        tokens = x.detach().flatten(0, -2).float()
        chosen = torch.linspace(0, len(tokens) - 1, ROWS, device=x.device).long()
        self.maxima.append(tokens.abs().amax(0).cpu())
        self.rows.append(tokens[chosen].cpu())


@contextmanager
def recorded(layers: dict[str, nn.Linear]) -> Generator[dict[str, LayerRecord]]:
    """Inside, record every forward pass of these layers, by name."""
    records = {name: LayerRecord() for name in layers}
    handles = [
        layer.register_forward_pre_hook(partial(_record_input, records[name]))
        for name, layer in layers.items()
    ]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def _record_input(record: LayerRecord, _: nn.Module, args: tuple[Any, ...]) -> None:
    record.add(args[0])
