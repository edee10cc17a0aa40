"""Precomputed columns of a dataset, copied into a store."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tinyflux_pl.cache.cached_text import FIRST
from tinyflux_pl.cache.rebuild import ReusableRows
from tinyflux_pl.cache.shards import VARIANT_SEPARATOR
from tinyflux_pl.cache.store import ENCODINGS, CacheStore
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import TextEncoder
from tinyflux_pl.core.types import TextEmbeddings
from tinyflux_pl.data.records.record_source import RecordSource
from tinyflux_pl.extraction.group_work import GroupWork, joined

MASK = f"{FIRST}.mask"


def copy_columns(
    store: CacheStore,
    records: RecordSource,
    group: str,
    text: TextEncoder,
    dtype: torch.dtype,
    title: str,
    batch: int,
    reusable: ReusableRows,
) -> int:
    """Fill what is missing of a precomputed group; returns the number of new rows."""
    todo = GroupWork(store, reusable, group, f"{title}: copy {group}", batch)
    for k in todo.shards():
        parts: list[dict[str, Tensor]] = []
        captions: list[tuple[str, ...]] = []
        for block in todo.blocks(k):
            parts.append(precomputed_columns(records, group, block, text, dtype))
            captions += [records[row].captions for row in block]
        columns = reusable.merge(store.rows(k), joined(parts))
        if group != ENCODINGS:
            todo.write(k, columns)
            continue
        written = list(map(VARIANT_SEPARATOR.join, captions))
        todo.write(k, columns, reusable.merge_captions(store.rows(k), written))
    return todo.computed


def precomputed_columns(
    records: RecordSource,
    group: str,
    rows: Sequence[int],
    text: TextEncoder,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """The columns of these records as a store holds them.

    Sample ids are the records'; a mask of the text that the dataset lacks is that of `text` for
    their captions.
    """
    columns = {name: part.to(dtype) for name, part in records.columns(group, rows).items()}
    if group != ENCODINGS:
        return columns
    read = [records[row] for row in rows]
    columns["sample_ids"] = torch.tensor([r.sample_id for r in read], dtype=torch.int64)
    if MASK not in columns:
        columns[MASK] = _masks([r.caption for r in read], text)
    return columns


def precomputed_inputs(
    records: RecordSource, rows: Sequence[int], text: TextEncoder, dtype: torch.dtype
) -> tuple[Tensor, TextEmbeddings]:
    """Latents and text of these records, for a teacher that reads the student's own."""
    columns = precomputed_columns(records, ENCODINGS, rows, text, dtype)
    tokens, mask, pooled = (columns[f"{FIRST}.{part}"] for part in ("tokens", "mask", "pooled"))
    return columns["latents"].float(), TextEmbeddings(tokens.float(), mask, pooled.float())


def _masks(captions: Sequence[str], text: TextEncoder) -> Tensor:
    masks = text.masks(captions)
    if masks is None:
        raise ConfigError(
            f"text={text.name} does not tell the padding of stored embeddings, which have no mask",
            where="text",
            cure="text=flan_t5_clip_v42, or the encoder that made them",
        )
    if not all(captions) and not bool(masks.all()):
        raise ConfigError(
            "embeddings without their captions: the encoder cannot tell which of them are padding",
            where="data.allow_missing_captions",
            cure="text=flan_t5_clip_v42, which attends to padding, or a cache with its prompts",
        )
    return masks.cpu()
