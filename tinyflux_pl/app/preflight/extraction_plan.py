"""Missing rows of the caches, with bytes and seconds by group, measured on a few samples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tinyflux_pl.app.caches.group_fingerprints import extraction_precision, extractor_of
from tinyflux_pl.app.caches.prepare import num_workers
from tinyflux_pl.app.caches.source_cache import SourceCache
from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.fitting import control_maps
from tinyflux_pl.app.preflight.cache_needs import GroupNeed
from tinyflux_pl.app.preflight.in_memory_store import InMemoryStore, samples_of
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.core.precision import autocast, check_dtype


@dataclass(frozen=True)
class GroupPlan:
    """One group's missing rows with their bytes and seconds."""

    need: GroupNeed
    bytes: int
    seconds: float


def extraction_plan(
    parts: Parts, needs: Sequence[GroupNeed], sources: Sequence[Source], samples: Sequence[Source]
) -> list[GroupPlan]:
    """The plan of every incomplete group; each is measured once a source, in training order.

    `samples`: the sources with a few rows in memory (cache_needs.sampled). Seconds are those of two
    samples at once, reading included; larger batches take less on a GPU.
    """
    caches = {(c.source, c.split): c for s in sources for c in s.caches.values()}
    stores = {(c.source, c.split): c.store for s in samples for c in s.caches.values()}
    measured: dict[tuple[str, str], float] = {}
    plans = []
    for need in needs:
        if not need.rows:
            continue
        cache, store = caches[need.source, need.split], stores[need.source, need.split]
        assert isinstance(store, InMemoryStore), "samples are in memory"
        key = (need.source, need.group)
        if key not in measured:
            measured[key] = _seconds_per_row(parts, cache, need.group)
        num_bytes = need.rows * store.row_bytes[need.group]
        plans.append(GroupPlan(need, num_bytes, need.rows * measured[key]))
    return plans


@torch.inference_mode()
def _seconds_per_row(parts: Parts, cache: SourceCache, group: str) -> float:
    if group in cache.records.precomputed:
        return _copying(parts, cache, group)
    return _encoding(parts, cache) if group == ENCODINGS else _expert(parts, cache, group)


def _copying(parts: Parts, cache: SourceCache, group: str) -> float:
    from tinyflux_pl.extraction.precomputed import precomputed_columns

    dtype = check_dtype(parts.config.data.store_dtype, "data.store_dtype")
    indices = samples_of(cache.records)
    started = time.perf_counter()
    precomputed_columns(cache.records, group, indices, parts.text, dtype)
    return (time.perf_counter() - started) / len(indices)


def _encoding(parts: Parts, cache: SourceCache) -> float:
    from tinyflux_pl.extraction.columns import image_columns, text_columns

    dtype = check_dtype(parts.config.data.store_dtype, "data.store_dtype")
    codec, text = parts.codec.to(parts.device), parts.text.to(parts.device)
    form, indices = control_maps.hint_form(parts.config), samples_of(cache.records)
    flip = parts.config.data.flip

    def encode() -> None:
        block = [cache.records[i] for i in indices]
        image_columns(block, codec, dtype, parts.device, len(block), form, flip)
        text_columns([r.captions for r in block], text, dtype, cache.records.variants)

    encode()  # reads the weights
    started = time.perf_counter()
    encode()
    seconds = time.perf_counter() - started
    codec.free()
    text.free()
    parts.text.to("cpu")  # as after an extraction
    return seconds / len(indices)


def _expert(parts: Parts, cache: SourceCache, name: str) -> float:
    from tinyflux_pl.extraction.encode import teacher_inputs
    from tinyflux_pl.extraction.precomputed import precomputed_inputs

    dtype = check_dtype(parts.config.data.store_dtype, "data.store_dtype")
    extractor = extractor_of(parts, name).to(parts.device)
    teacher = extractor.teacher
    codec, text = teacher.codec.to(parts.device), teacher.text.to(parts.device)
    precision = extraction_precision(parts, cache.store if cache.exists else None, name)
    indices = samples_of(cache.records)

    def extract(count: int) -> None:
        block = [cache.records[i] for i in indices[:count]]
        if cache.records.has_pictures:
            latents, embeddings = teacher_inputs(block, codec, text, dtype)
        else:
            latents, embeddings = precomputed_inputs(cache.records, indices[:count], text, dtype)
        with autocast(precision, extractor.device):
            columns = extractor.extract(latents, embeddings, [r.sample_id for r in block])
        for column in columns.values():
            column.cpu()  # waits for the device

    extract(1)  # reads the weights
    started = time.perf_counter()
    extract(len(indices))
    seconds = time.perf_counter() - started
    codec.free()
    text.free()
    return seconds / len(indices) / num_workers(extractor)
