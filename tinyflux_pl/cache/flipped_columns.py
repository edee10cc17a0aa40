"""Columns of mirrored pictures, and the draw between them and the plain ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Bool
from torch import Tensor

from tinyflux_pl.core import rng

FLIPPED = "flipped."  # before the name of the plain column
Rows = Callable[[str, Tensor], Tensor]  # key, rows


def drawn_flips(seed: int, sample_ids: Sequence[int], step: int) -> Bool[Tensor, " b"]:
    """True for the half of the samples that a step mirrors, drawn from (seed, sample, step)."""
    return rng.uniform(seed, "flip", sample_ids, step) < 0.5


def with_flips(rows: Rows, flips: Bool[Tensor, " b"]) -> Rows:
    """Read the mirrored column where `flips` is True; the plain one elsewhere."""
    return partial(_mixed, rows, flips)


def _mixed(rows: Rows, flips: Bool[Tensor, " b"], key: str, index: Tensor) -> Tensor:
    plain, mirrored = (~flips).nonzero().flatten(), flips.nonzero().flatten()
    names = ((key, plain), (f"{FLIPPED}{key}", mirrored))
    parts = [rows(name, index[position]) for name, position in names if len(position)]
    return torch.cat(parts)[torch.cat((plain, mirrored)).argsort()]
