"""An adapter independent of any network and file layout: factors by layer name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")


@dataclass(frozen=True)
class LowRank:
    """W + scale * up @ down: up (out, rank), down (rank, in). `magnitude` (out,) is DoRA's."""

    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        """Columns of `up`."""
        return self.up.shape[1]


@dataclass(frozen=True)
class Kronecker:
    """W + scale * kron(w1, w2); `factors` are named as in LOKR, each w whole or as a times b.

    `rank` is that of the factors that are given as two, and was asked for where none is.
    """

    factors: Mapping[str, Tensor]
    scale: float
    rank: int

    @property
    def is_unfactored(self) -> bool:
        """True if neither factor is given as two."""
        return not any(name.endswith(("_a", "_b")) for name in self.factors)


Layer = LowRank | Kronecker


@dataclass(frozen=True)
class Adapter:
    """Layers by their names within the network, and the layout of the file that they came from."""

    layers: Mapping[str, Layer]
    layout: str


def stacked(parts: list[LowRank]) -> LowRank:
    """The adapter of a fused layer, whose rows are those of several layers, concatenated.

    Exact: `down` holds the factors of all, `up` has each in rows and columns of its own.
    """
    down = torch.cat([part.down for part in parts])
    return LowRank(down, torch.block_diag(*(part.up * part.scale for part in parts)), 1.0)


def split(layer: LowRank, rows: list[int]) -> list[LowRank]:
    """The adapters of the layers that a fused layer's rows belong to, from top to bottom."""
    return [LowRank(layer.down, up, layer.scale) for up in layer.up.split(rows)]
