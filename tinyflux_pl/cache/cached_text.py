"""The text of cached rows: the first caption of each, or in training steps a drawn one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import torch
from torch import Tensor

from tinyflux_pl.core import rng
from tinyflux_pl.core.types import TextEmbeddings

FIRST = "text"  # columns text.tokens, text.mask, text.pooled
COUNT = "caption.count"  # captions of each row
Rows = Callable[[str, Tensor, int | None], Tensor]  # key, rows, first entries of the first axis


def prefix_of(variant: int) -> str:
    """The prefix of a caption's columns; 0 is the first caption."""
    return f"caption.{variant}" if variant else FIRST


def variants_in(layout: Sequence[str]) -> int:
    """The largest number of captions that a row of these columns has."""
    return next(k for k in count(1) if f"{prefix_of(k)}.mask" not in layout)


def chosen_variants(seed: int, sample_ids: Sequence[int], counts: Sequence[int], step: int) -> list:
    """The caption of each sample at a step: uniform, a function of (seed, sample, step)."""
    draws = (rng.derive(seed, "caption", i, step) for i in sample_ids)
    return [draw % number for draw, number in zip(draws, counts, strict=True)]


def text_of(rows: Rows, index: Tensor, variants: Sequence[int]) -> TextEmbeddings:
    """The embeddings of one caption per row, in fp32, cut to the longest among them."""
    chosen = torch.as_tensor(variants)
    parts, positions = [], []
    for variant in sorted({*variants}):
        position = (chosen == variant).nonzero().flatten()
        parts.append(_one_variant(rows, index[position], prefix_of(variant)))
        positions.append(position)
    if len(parts) == 1:
        return parts[0]
    return TextEmbeddings.cat(parts).select(torch.cat(positions).argsort())


def _one_variant(rows: Rows, index: Tensor, prefix: str) -> TextEmbeddings:
    mask = rows(f"{prefix}.mask", index, None).bool()
    used = int(mask.any(0).nonzero().max()) + 1 if bool(mask.any()) else 1
    tokens = rows(f"{prefix}.tokens", index, used).float()
    return TextEmbeddings(tokens, mask[:, :used], rows(f"{prefix}.pooled", index, None).float())
