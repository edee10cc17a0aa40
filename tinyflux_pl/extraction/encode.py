"""Records to store, shard by shard: encoders first, then one expert after another."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.cache.disk_space import require_disk_space
from tinyflux_pl.cache.rebuild import ReusableRows
from tinyflux_pl.cache.store import ENCODINGS, CacheStore
from tinyflux_pl.codecs.inpaint_mask import inpaint_input
from tinyflux_pl.core.precision import autocast
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.protocols import Codec, Extractor, Record, Records, TextEncoder
from tinyflux_pl.core.size_conditioning import SIZE_IDS
from tinyflux_pl.core.types import TARGET, TextEmbeddings
from tinyflux_pl.extraction.lanes import side_by_side

BATCH = 8  # images that a codec encodes, and that a teacher sees with all their buckets, at once


def encodings_fingerprint(codec: Codec, text: TextEncoder, dtype: str) -> dict[str, Any]:
    """Fingerprint of everything that determines the stored latents and text embeddings."""
    return {"codec": codec.fingerprint(), "text": text.fingerprint(), "dtype": dtype}


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
) -> int:
    """Fill what is missing of the group `encodings`: latents, text, ids, masks, captions.

    Rows that are `reusable` from an older store are copied; returns the number of new rows.
    """
    reusable = reusable or ReusableRows(None, store, ENCODINGS)
    pending = store.pending(ENCODINGS)
    todo = _Blocks(store, reusable, pending, f"{title}: encode", batch)
    for k in pending:
        rows = store.rows(k)
        parts: list[dict[str, Tensor]] = []
        captions: list[str] = []
        for block in todo.of(k):
            read = [records[i] for i in block]
            parts.append(_images(read, codec, dtype, device, batch))
            captions += [r.caption for r in read]
        columns = _joined(parts)
        # a whole shard at once: encoders that share memory are read again for each call
        if captions:
            columns |= _texts(captions, text, dtype)
        merged_captions = reusable.merge_captions(rows, captions)
        _write(store, ENCODINGS, k, reusable.merge(rows, columns), merged_captions, pending)
    codec.free()
    text.free()
    return todo.close()


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
    pending = store.pending(group)
    todo = _Blocks(store, reusable, pending, f"{title}: {group}", batch)

    def inputs(block: list[int]) -> tuple[int, Tensor, TextEmbeddings, list[int]]:
        ids = store.gather("sample_ids", _filled(block, batch)).tolist()
        if shares_encodings:
            return len(block), *_cached(store, _filled(block, batch)), ids
        return (
            len(block),
            *_encoded(_filled([records[i] for i in block], batch), codec, text, dtype),
            ids,
        )

    @torch.inference_mode()  # set per thread, as autocast is
    def features(
        worker: Extractor, block: tuple[int, Tensor, TextEmbeddings, list[int]]
    ) -> dict[str, Tensor]:
        count, *arguments = block
        with autocast(precision, worker.device):
            columns = worker.extract(*arguments)
        return {name: value[:count].to(dtype).cpu() for name, value in columns.items()}

    for k in pending:
        parts = list(side_by_side([extractor, *copies], features, map(inputs, todo.of(k))))
        _write(store, group, k, reusable.merge(store.rows(k), _joined(parts)), None, pending)
    return todo.close()


def images_of(records: list[Record]) -> Tensor:
    """Pixels (B, 3, H, W) in [-1, 1]; what is no picture of bytes (sequences) as it is, channels
    first.
    """
    pixels = torch.from_numpy(np.stack([r.image for r in records]))
    values = pixels.permute(0, 3, 1, 2).float()
    return values.div(127.5).sub(1) if pixels.dtype == torch.uint8 else values


@torch.inference_mode()
def columns_of(
    records: list[Record],
    codec: Codec,
    text: TextEncoder,
    dtype: torch.dtype,
    device: torch.device | str,
) -> dict[str, Tensor]:
    """Columns that `encode` would store of these records, without the captions."""
    columns = _images(records, codec, dtype, device, len(records)) | _texts(
        [r.caption for r in records], text, dtype
    )
    codec.free()
    text.free()
    return columns


class _Blocks:
    """The rows still to be computed, in blocks shard by shard, behind one progress bar."""

    def __init__(
        self, store: CacheStore, reusable: ReusableRows, pending: list[int], title: str, batch: int
    ) -> None:
        self._rows = {k: len(reusable.missing_rows(store.rows(k))) for k in pending}
        self._batch, self.total = batch, sum(self._rows.values())
        blocks = (
            block for k in pending for block in _split(reusable.missing_rows(store.rows(k)), batch)
        )
        self._bar = iter(track(blocks, title, self.total, "image", batch) if self.total else ())

    def of(self, k: int) -> Iterator[list[int]]:
        """The blocks of shard k; shards come in their order."""
        for _ in range(-(-self._rows[k] // self._batch)):
            yield next(self._bar)

    def close(self) -> int:
        """End the bar; how many rows there were."""
        next(self._bar, None)
        return self.total


def _split(rows: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])


def _filled(block: list[Any], size: int) -> list[Any]:
    """A block repeated to its full size: kernels round by the shape of a batch, so that all have
    one shape.
    """
    return [*block, *[block[-1]] * (size - len(block))]


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _write(
    store: CacheStore,
    group: str,
    k: int,
    columns: dict[str, Tensor],
    captions: list[str] | None,
    pending: list[int],
) -> None:
    if k == pending[0]:
        require_disk_space(store, group, columns)
    store.write_shard(group, k, columns, captions)


def _texts(captions: list[str], text: TextEncoder, dtype: torch.dtype) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # counted, of all captions at once
        warnings.filterwarnings("ignore", "a prompt of .* is cut at")
        embeddings = text.encode(captions)
    return {
        "text.tokens": embeddings.tokens.to(dtype).cpu(),
        "text.mask": embeddings.mask.cpu(),
        "text.pooled": embeddings.pooled.to(dtype).cpu(),
    }


def _images(
    block: list[Record], codec: Codec, dtype: torch.dtype, device: torch.device | str, batch: int
) -> dict[str, Tensor]:
    latents = codec.encode(images_of(_filled(block, batch)).to(device))[: len(block)]
    columns = {
        "latents": latents.to(dtype).cpu(),
        "sample_ids": torch.tensor([r.sample_id for r in block], dtype=torch.int64),
    }
    if all(r.mask is not None for r in block):
        masks = torch.from_numpy(np.stack([np.asarray(r.mask, np.float32) for r in block]))[:, None]
        columns["masks"] = torch.nn.functional.interpolate(masks, latents.shape[-2:], mode="area")[
            :, 0
        ].to(dtype)
    if SIZE_IDS in block[0].attributes:
        size_ids = [r.attributes[SIZE_IDS] for r in block]
        columns[SIZE_IDS] = torch.tensor(size_ids, dtype=torch.int32)
    for name in TARGET:
        if name in block[0].attributes:
            columns[name] = torch.from_numpy(np.stack([r.attributes[name] for r in block]))
    conditions = _image_conditions(_filled(block, batch), codec, device)
    return columns | {
        name: value[: len(block)].to(dtype).cpu() for name, value in conditions.items()
    }


def _image_conditions(
    block: list[Record], codec: Codec, device: torch.device | str
) -> dict[str, Tensor]:
    """Columns of image conditions: reference.0, reference.1 ..., and inpaint
    (codecs.inpaint_mask).
    """
    columns = {}
    for k in range(len(block[0].references)):
        references = [replace(r, image=r.references[k]) for r in block]
        columns[f"reference.{k}"] = codec.encode(images_of(references).to(device))
    if block[0].hole is not None:
        holes = torch.from_numpy(np.stack([np.asarray(r.hole, np.float32) for r in block]))[:, None]
        columns["inpaint"] = inpaint_input(codec, images_of(block).to(device), holes.to(device))
    return columns


def _cached(store: CacheStore, rows: list[int]) -> tuple[Tensor, TextEmbeddings]:
    names = ("text.tokens", "text.mask", "text.pooled")
    tokens, mask, pooled = (store.gather(name, rows) for name in names)
    return store.gather("latents", rows).float(), TextEmbeddings(
        tokens.float(), mask, pooled.float()
    )


def _encoded(
    block: list[Record], codec: Codec, text: TextEncoder, dtype: torch.dtype
) -> tuple[Tensor, TextEmbeddings]:
    """Rounded and laid out as from the store: a student that shares its teacher's codec must change
    nothing.
    """

    def as_stored(part: Tensor) -> Tensor:
        return part.to(dtype).float().contiguous()

    embeddings = text.encode([r.caption for r in block])
    latents = codec.encode(images_of(block))
    tokens = as_stored(embeddings.tokens)
    pooled = as_stored(embeddings.pooled)
    return as_stored(latents), TextEmbeddings(tokens, embeddings.mask, pooled)
