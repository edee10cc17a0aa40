"""Encode and extract the missing rows of a run's caches."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from tinyflux_pl.app.caches.group_fingerprints import (
    encodings_fingerprint,
    group_fingerprint,
    needed_extractor,
    shares_encodings,
)
from tinyflux_pl.app.caches.precomputed_text import text_note
from tinyflux_pl.app.caches.source_cache import SourceCache
from tinyflux_pl.app.caches.sources import Source, open_sources
from tinyflux_pl.app.caches.waiting import locked_for_filling, locked_for_writing
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.fitting import control_maps
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.core.progress import say
from tinyflux_pl.data.records import caption_lengths

# bytes of a teacher's weights, below which threads within an operation gain little
MAX_THREADED_BYTES = 2**26
MAX_COPIES = 8


def prepare(
    parts: Parts,
    rebuild: bool = False,
    sources: list[Source] | None = None,
    shared: bool = False,
) -> list[Source]:
    """Fill the caches of the run's sources, encoders and teachers one at a time.

    All checks come before the first image is encoded. With `rebuild` the old caches stay until the
    new ones are complete, which take over every row that is still valid. `sources`: if they are
    open already. `shared`: other processes may fill the same caches meanwhile, a shard each;
    without it they wait for this one.
    """
    sources = open_sources(parts) if sources is None else sources
    shared = shared and not rebuild
    with ExitStack() as filled:
        with ExitStack() as begun:
            _lock_incomplete(sources, rebuild, shared, begun, filled)
            extractors = _begin(parts, sources, rebuild)
            if not shared:
                filled.push(begun.pop_all())
        _encode(parts, sources)
        for name in list(extractors):
            _extract(parts, sources, name, extractors.pop(name))
        for source in sources:
            for cache in source.caches.values():
                cache.finish()
    return sources


def _lock_incomplete(
    sources: list[Source], rebuild: bool, shared: bool, begun: ExitStack, filled: ExitStack
) -> None:
    """Lock the folder of every source that will be written; a second process waits."""
    for source in sorted(sources, key=lambda source: source.folder):
        if rebuild or not source.is_complete:
            begun.enter_context(locked_for_writing(source))
            filled.enter_context(locked_for_filling(source, shared))
            for cache in source.caches.values():
                cache.close()  # another process may have written it while this one waited


def _begin(parts: Parts, sources: list[Source], rebuild: bool) -> dict[str, Any]:
    """Create or resume the stores and describe their groups; returns the extractors."""
    for source in sources:
        for cache in source.caches.values():
            cache.create_store(rebuild)
    _begin_encodings(parts, sources)
    return {name: _begin_expert(parts, sources, name) for name in parts.cached}


def _begin_encodings(parts: Parts, sources: list[Source]) -> None:
    fingerprint = encodings_fingerprint(parts)
    for source in sources:
        for cache in source.caches.values():
            cache.begin_group(ENCODINGS, fingerprint)
            if not cache.store.complete(ENCODINGS):
                records = cache.records
                records.check()
                if ENCODINGS in records.precomputed and (note := text_note(parts, records)):
                    say(f"note: {note}")
                records.findings = [
                    *records.findings,
                    *caption_lengths.check_captions(records, parts.text),
                ]


def _begin_expert(parts: Parts, sources: list[Source], name: str) -> Any:
    """Describe an expert's group in every source that has it; returns its extractor, if needed."""
    caches = _caches_with_group(sources, name)
    extractor = needed_extractor(parts, name, [cache.records for cache in caches])
    for cache in caches:
        store = cache.store if cache.old_store is None else cache.old_store
        cache.begin_group(name, group_fingerprint(parts, cache.records, name, extractor, store))
    return extractor


def _encode(parts: Parts, sources: list[Source]) -> None:
    from tinyflux_pl.extraction.encode import encode

    dtype = _store_dtype(parts)
    batch = _batch_size(parts)
    for cache in [cache for source in sources for cache in source.caches.values()]:
        if cache.store.complete(ENCODINGS):
            continue
        if ENCODINGS in cache.records.precomputed:
            _copy(parts, cache, ENCODINGS)
            continue
        parts.codec.to(parts.device)
        parts.text.to(parts.device)
        cache.new_rows[ENCODINGS] = encode(
            cache.store,
            cache.records,
            parts.codec,
            parts.text,
            dtype,
            cache.title,
            parts.device,
            batch,
            cache.reusable_rows(ENCODINGS),
            control_maps.hint_form(parts.config),
            cache.records.variants,
            parts.config.data.flip,
        )
    parts.text.to("cpu")  # batches reach the module on the CPU


def _extract(parts: Parts, sources: list[Source], name: str, extractor: Any) -> None:
    from tinyflux_pl.extraction.encode import extract

    incomplete = [
        cache for cache in _caches_with_group(sources, name) if not cache.store.complete(name)
    ]
    for cache in [cache for cache in incomplete if name in cache.records.precomputed]:
        _copy(parts, cache, name)
        incomplete.remove(cache)
    if not incomplete:
        return
    teacher = extractor.teacher
    dtype = _store_dtype(parts)
    batch = _batch_size(parts)
    codec = teacher.codec.to(parts.device)
    text = teacher.text.to(parts.device)
    shared = shares_encodings(parts, extractor)
    extractor.to(parts.device)
    extractor.max_batch = batch * len(extractor.t_buckets)
    copies = extractor.copies(num_workers(extractor) - 1)
    for cache in incomplete:
        cache.new_rows[name] = extract(
            cache.store,
            cache.records,
            extractor,
            codec,
            text,
            shared,
            dtype,
            cache.store.groups()[name]["precision"],
            cache.title,
            batch,
            cache.reusable_rows(name),
            copies,
        )


def _copy(parts: Parts, cache: SourceCache, group: str) -> None:
    """Fill a group with precomputed columns of the dataset."""
    from tinyflux_pl.extraction.precomputed import copy_columns

    cache.new_rows[group] = copy_columns(
        cache.store,
        cache.records,
        group,
        parts.text,
        _store_dtype(parts),
        cache.title,
        _batch_size(parts),
        cache.reusable_rows(group),
    )


def _caches_with_group(sources: list[Source], group: str) -> list[SourceCache]:
    """The caches of all splits that need this group."""
    return [c for source in sources for c in source.caches.values() if group in c.experts]


def num_workers(extractor: Any) -> int:
    """Copies of a small teacher that work in parallel: one for each CPU thread."""
    weights = sum(parameter.nbytes for parameter in extractor.teacher.denoiser.parameters())
    if weights > MAX_THREADED_BYTES or extractor.device.type != "cpu":
        return 1
    return min(torch.get_num_threads(), MAX_COPIES)


def _store_dtype(parts: Parts) -> torch.dtype:
    return getattr(torch, parts.config.data.store_dtype)


def _batch_size(parts: Parts) -> int:
    """Images that are encoded at once."""
    return parts.config.data.extraction_batch
