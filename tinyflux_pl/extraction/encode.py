"""Records to store, shard by shard: encoders first, then one expert after another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.core.precision import autocast
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.protocols import Codec, Record, Records, TextEncoder
from tinyflux_pl.core.types import TextEmbeddings
from tinyflux_pl.data.cache_store import CacheStore

ROWS = 64  # images in memory at once while encoding; no result depends on it


class Extractor(Protocol):
    """Images of a teacher's own codec and text in, an expert's buckets out."""

    name: str
    device: torch.device

    def fingerprint(self) -> dict[str, Any]: ...
    def extract(self, latents: Tensor, text: TextEmbeddings, sample_ids: list[int]) -> dict[str, Tensor]: ...


def encodings_fingerprint(records: Records, codec: Codec, text: TextEncoder, dtype: str) -> dict[str, Any]:
    """What decides the latents and the embeddings of a cache."""
    return {"data": records.fingerprint(), "codec": codec.fingerprint(), "text": text.fingerprint(), "dtype": dtype}


@torch.inference_mode()
def encode(
    store: CacheStore,
    records: Records,
    codec: Codec,
    text: TextEncoder,
    dtype: torch.dtype,
    title: str,
    device: torch.device | str = "cpu",
) -> None:
    """Fill what is missing of the group `encodings`: latents, text, ids, masks, captions."""
    pending = store.pending("encodings")
    total = sum(len(store.rows(k)) for k in pending)
    bar = iter(track(_blocks(store, records, pending), f"{title}: encode", total, "image", ROWS))
    for k in pending:
        parts: list[dict[str, Tensor]] = []
        captions: list[str] = []
        while len(captions) < len(store.rows(k)):
            block = next(bar)
            parts.append(_images(block, codec, dtype, device))
            captions += [r.caption for r in block]
        columns = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
        # a whole shard at once: encoders that share the memory are read anew for every call
        columns |= _texts(captions, text, dtype)
        if k == pending[0]:
            store.require_room("encodings", columns)
        store.write_shard("encodings", k, columns, captions)
    next(bar, None)
    codec.free()
    text.free()


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
) -> None:
    """Fill what is missing of an expert's group, from the teacher's own latents and text.

    Where the teacher reads the same codec and text as the student, the cached encodings serve.
    `precision` is that of the teacher's forward pass; statistics are taken in fp32 all the same.
    """
    group = extractor.name
    pending = store.pending(group)
    total = sum(len(store.rows(k)) for k in pending)
    bar = iter(track(_ranges(store, pending), f"{title}: {group}", total, "image", ROWS))
    for k in pending:
        parts: list[dict[str, Tensor]] = []
        for _ in range(len(list(_split(store.rows(k))))):
            rows = next(bar)
            ids = store.gather("sample_ids", rows).tolist()
            latents, told = _teacher_inputs(store, records, rows, codec, text, shares_encodings)
            with autocast(precision, extractor.device):
                found = extractor.extract(latents, told, ids)
            parts.append({name: value.to(dtype).cpu() for name, value in found.items()})
        columns = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}
        if k == pending[0]:
            store.require_room(group, columns)
        store.write_shard(group, k, columns, None)
    next(bar, None)


def images_of(records: list[Record]) -> Tensor:
    """Pixels (B, 3, H, W) in [-1, 1]."""
    pixels = torch.from_numpy(np.stack([r.image for r in records]))
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _texts(captions: list[str], text: TextEncoder, dtype: torch.dtype) -> dict[str, Tensor]:
    told = text.encode(captions)
    return {
        "text.tokens": told.tokens.to(dtype).cpu(),
        "text.mask": told.mask.cpu(),
        "text.pooled": told.pooled.to(dtype).cpu(),
    }


def _images(block: list[Record], codec: Codec, dtype: torch.dtype, device: torch.device | str) -> dict[str, Tensor]:
    columns = {
        "latents": codec.encode(images_of(block).to(device)).to(dtype).cpu(),
        "sample_ids": torch.tensor([r.sample_id for r in block], dtype=torch.int64),
    }
    if all(r.mask is not None for r in block):
        masks = torch.from_numpy(np.stack([np.asarray(r.mask, np.float32) for r in block]))[:, None]
        size = columns["latents"].shape[-2:]
        columns["masks"] = torch.nn.functional.interpolate(masks, size, mode="area")[:, 0].to(dtype)
    return columns


def _teacher_inputs(
    store: CacheStore, records: Records, rows: list[int], codec: Codec, text: TextEncoder, shared: bool
) -> tuple[Tensor, TextEmbeddings]:
    if shared:
        names = ("text.tokens", "text.mask", "text.pooled")
        tokens, mask, pooled = (store.gather(name, rows) for name in names)
        return store.gather("latents", rows).float(), TextEmbeddings(tokens.float(), mask, pooled.float())
    block = [records[i] for i in rows]
    return codec.encode(images_of(block)), text.encode([r.caption for r in block])


def _split(rows: range) -> Iterator[list[int]]:
    for start in range(0, len(rows), ROWS):
        yield list(rows[start : start + ROWS])


def _ranges(store: CacheStore, shards: list[int]) -> Iterator[list[int]]:
    for k in shards:
        yield from _split(store.rows(k))


def _blocks(store: CacheStore, records: Records, shards: list[int]) -> Iterator[list[Record]]:
    for rows in _ranges(store, shards):
        yield [records[i] for i in rows]
