"""Codec and text encoder for a source of pairs: widths and moments from its data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.codecs.identity import Identity
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.sequence_pairs import Moments
from tinyflux_pl.data.sequences.records import PairRecords
from tinyflux_pl.text.precomputed_tokens import PrecomputedTokens


def identity_for(records: Any) -> Identity:
    """The codec of these pairs' targets; ConfigError for records that are no pairs."""
    source = _pairs(records, "codec=identity")
    moments = Moments.over(p.truth[p.target_mask] for p in source.blocks())
    ids = _shared((p.target_ids, p.target_mask) for p in source.blocks())
    return Identity(source.shape.tokens, list(moments.mean), list(moments.spread), ids)


def conditions_for(records: Any, store_dtype: str | None = None) -> PrecomputedTokens:
    """The encoder of these pairs' conditions; ConfigError for records that are no pairs."""
    source = _pairs(records, "text=given")
    if store_dtype != "float32":
        raise ConfigError(
            f"conditions end in position ids, which {store_dtype} would round",
            where="data.store_dtype",
            cure="data.store_dtype=float32",
        )
    moments = Moments.over(p.condition[p.condition_mask] for p in source.blocks())
    vector = Moments.over(p.vector for p in source.blocks())
    shape = source.shape
    statistics = (moments.mean, moments.spread, vector.mean, vector.spread)
    ids = _shared((p.condition_ids, p.condition_mask) for p in source.blocks())
    widths = (shape.condition_tokens, shape.axes)
    return PrecomputedTokens(*widths, *map(list, statistics), ids=ids, named=source.named)


def _shared(blocks: Iterable[tuple[Tensor, Tensor]]) -> list[list[float]] | None:
    """Positions (tokens, A) of the tokens, if they are equal in all pairs; else None."""
    positions = torch.zeros(())
    seen = torch.zeros((), dtype=torch.bool)
    for ids, mask in blocks:
        first = ids[mask.int().argmax(0), torch.arange(ids.shape[1])]
        positions = torch.where(seen[..., None], positions, first)
        seen = seen | mask.any(0)
        if bool(((ids != positions).any(-1) & mask).any()):
            return None
    return positions.tolist()


def _pairs(records: Any, choice: str) -> PairRecords:
    if not isinstance(records, PairRecords):
        raise ConfigError(
            f"{choice} reads its widths from pairs of sequences",
            where="the command line",
            cure="use it with data=sequences, digit_halves or bar_charts; generate.py reads it "
            "from the checkpoint",
        )
    return records
