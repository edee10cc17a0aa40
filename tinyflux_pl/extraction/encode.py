"""Records to store, shard by shard: encoders first, then one expert after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.cache.rebuild import ReusableRows
from tinyflux_pl.cache.shards import VARIANT_SEPARATOR
from tinyflux_pl.cache.store import ENCODINGS, CacheStore
from tinyflux_pl.core.hint_forms import LATENTS
from tinyflux_pl.core.precision import autocast
from tinyflux_pl.core.protocols import Codec, Extractor, TextEncoder
from tinyflux_pl.core.record import Record, Records
from tinyflux_pl.core.types import TextEmbeddings
from tinyflux_pl.extraction.columns import filled, image_columns, images_of, text_columns
from tinyflux_pl.extraction.group_work import GroupWork, joined
from tinyflux_pl.extraction.parallel_blocks import run_parallel

BATCH = 8  # images that a codec encodes, and that a teacher sees with all their buckets, at once


def encodings_fingerprint(
    codec: Codec,
    text: TextEncoder,
    dtype: str,
    hint_form: str | None = None,
    flip: bool = False,
) -> dict[str, Any]:
    """Fingerprint of everything that determines the stored latents, text embeddings and maps."""
    hint = {} if hint_form is None else {"hint": hint_form}
    mirrored = {"flip": True} if flip else {}
    inputs = {"codec": codec.fingerprint(), "text": text.fingerprint(), "dtype": dtype}
    return {**inputs, **hint, **mirrored}


@torch.inference_mode()
def encode(
    store: CacheStore,
    records: Records,
    codec: Codec,
    text: TextEncoder,
    dtype: torch.dtype,
    title: str,
    device: torch.device | str = "cpu",
    batch: int = BATCH,
    reusable: ReusableRows | None = None,
    hint_form: str = LATENTS,
    variants: int = 1,
    flip: bool = False,
) -> int:
    """Fill what is missing of the group `encodings`: latents, text, ids, masks, captions, maps.

    A row has space for so many `variants` of its caption, and with `flip` for its mirror image.

    Rows that are `reusable` from an older store are copied; returns the number of new rows.
    """
    reusable = reusable or ReusableRows(None, store, ENCODINGS)
    todo = GroupWork(store, reusable, ENCODINGS, f"{title}: encode", batch)
    for k in todo.shards():
        rows = store.rows(k)
        parts: list[dict[str, Tensor]] = []
        captions: list[tuple[str, ...]] = []
        for block in todo.blocks(k):
            read = [records[i] for i in block]
            parts.append(image_columns(read, codec, dtype, device, batch, hint_form, flip))
            captions += [r.captions for r in read]
        columns = joined(parts)
        # a whole shard at once: encoders that share memory are read again for each call
        if captions:
            columns |= text_columns(captions, text, dtype, variants)
        written = list(map(VARIANT_SEPARATOR.join, captions))
        merged_captions = reusable.merge_captions(rows, written)
        todo.write(k, reusable.merge(rows, columns), merged_captions)
    codec.free()
    text.free()
    return todo.computed


@torch.inference_mode()
def extract(
    store: CacheStore,
    records: Records,
    extractor: Extractor,
    codec: Codec,
    text: TextEncoder,
    shares_encodings: bool,
    dtype: torch.dtype,
    precision: str,
    title: str,
    batch: int = BATCH,
    reusable: ReusableRows | None = None,
    copies: Sequence[Extractor] = (),
) -> int:
    """Fill what is missing of an expert's group, from the teacher's own latents and text.

    Where the teacher reads the same codec and text as the student, the cached encodings serve.
    `precision` is that of the teacher's forward pass; statistics are taken in fp32 all the same.
    `copies` of the extractor, each with its own network, process other blocks in parallel.
    Rows that are `reusable` from an older store are copied; returns the number of new rows.
    """
    group = extractor.name
    reusable = reusable or ReusableRows(None, store, group)
    todo = GroupWork(store, reusable, group, f"{title}: {group}", batch)

    def inputs(block: list[int]) -> tuple[int, Tensor, TextEmbeddings, list[int]]:
        ids = store.gather("sample_ids", filled(block, batch)).tolist()
        if shares_encodings:
            return len(block), *_cached(store, filled(block, batch)), ids
        return (
            len(block),
            *teacher_inputs(filled([records[i] for i in block], batch), codec, text, dtype),
            ids,
        )

    @torch.inference_mode()  # set per thread, as autocast is
    def features(
        worker: Extractor, block: tuple[int, Tensor, TextEmbeddings, list[int]]
    ) -> dict[str, Tensor]:
        count, *arguments = block
        with autocast(precision, worker.device):
            columns = worker.extract(*arguments)
        stored = {name: value[:count].cpu() for name, value in columns.items()}
        # levels of quantised columns stay integers
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in stored.items()}

    for k in todo.shards():
        parts = list(run_parallel([extractor, *copies], features, map(inputs, todo.blocks(k))))
        todo.write(k, reusable.merge(store.rows(k), joined(parts)))
    return todo.computed


def _cached(store: CacheStore, rows: list[int]) -> tuple[Tensor, TextEmbeddings]:
    names = ("text.tokens", "text.mask", "text.pooled")
    tokens, mask, pooled = (store.gather(name, rows) for name in names)
    return store.gather("latents", rows).float(), TextEmbeddings(
        tokens.float(), mask, pooled.float()
    )


def teacher_inputs(
    block: list[Record], codec: Codec, text: TextEncoder, dtype: torch.dtype
) -> tuple[Tensor, TextEmbeddings]:
    """Latents and text rounded as in the store.

    A student that shares its teacher's codec must not change the features.
    """

    def as_stored(part: Tensor) -> Tensor:
        return part.to(dtype).float().contiguous()

    embeddings = text.encode([r.caption for r in block])
    latents = codec.encode(images_of(block))
    tokens = as_stored(embeddings.tokens)
    pooled = as_stored(embeddings.pooled)
    return as_stored(latents), TextEmbeddings(tokens, embeddings.mask, pooled)
