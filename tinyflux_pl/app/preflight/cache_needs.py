"""The groups of a run's caches, and their missing rows, bytes and files; writes nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyflux_pl.app.caches.group_fingerprints import (
    encodings_fingerprint,
    group_fingerprint,
    needed_extractor,
)
from tinyflux_pl.app.caches.source_cache import SourceCache
from tinyflux_pl.app.caches.sources import Source
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.preflight.in_memory_store import InMemoryStore
from tinyflux_pl.cache.cached_text import prefix_of, variants_in
from tinyflux_pl.cache.staleness import repair_hint, require_equal
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import CorruptStore

FILES_PER_SHARD = 2  # the shard and its record


@dataclass(frozen=True)
class GroupNeed:
    """One group of one store: all rows, missing rows, and their files."""

    source: str
    split: str
    store: Path
    group: str
    total: int
    rows: int
    files: int


def needs(cache: SourceCache) -> list[GroupNeed]:
    """The groups of one split; CorruptStore if a seal or the size of a shard is wrong."""
    total = len(cache.records)
    shard_size = cache.store.shard_size if cache.exists else cache.config.data.shard_size
    cached = cache.store.groups() if cache.exists else {}
    group_needs = []
    for group in cache.groups:
        pending = cache.store.pending(group) if group in cached else range(-(-total // shard_size))
        rows = sum(min(shard_size, total - k * shard_size) for k in pending)
        files = FILES_PER_SHARD * len(pending)
        need = GroupNeed(cache.source, cache.split, cache.folder, group, total, rows, files)
        group_needs.append(need)
    return group_needs


def sampled(parts: Parts, sources: Sequence[Source]) -> list[Source]:
    """The run's sources, with a few samples in memory instead of their stores."""

    def sampled_cache(cache: SourceCache) -> SourceCache:
        replaced = copy.copy(cache)
        replaced.store = InMemoryStore(parts, cache.records, cache.experts)
        return replaced

    return [
        Source(s.name, s.weight, {split: sampled_cache(cache) for split, cache in s.caches.items()})
        for s in sources
    ]


def check_fingerprints(parts: Parts, sources: Sequence[Source]) -> None:
    """Raise StaleCache for stores and groups that were made from other inputs."""
    encodings = encodings_fingerprint(parts)
    caches = [cache for source in sources for cache in source.caches.values()]
    extractors = {}
    for name in parts.cached:
        datasets = [cache.records for cache in caches if name in cache.experts]
        extractors[name] = needed_extractor(parts, name, datasets)
    for cache in [cache for cache in caches if cache.exists]:
        cache.require_same_records()
        cached = cache.store.groups()
        expected = {ENCODINGS: encodings}
        for name in cache.experts:
            expected[name] = group_fingerprint(
                parts, cache.records, name, extractors[name], cache.store
            )
        for group in [group for group in cache.groups if group in cached]:
            require_equal(
                expected[group],
                cached[group],
                f"the cached {group!r}",
                str(cache.folder),
                cache.cure(),
            )


def check_shards(
    sources: Sequence[Source], caches: Sequence[GroupNeed], seed: int, run: str | int
) -> None:
    """Verify the hash of one shard of each complete group; CorruptStore for a damaged one.

    The run's name selects the shard, so that different runs check different ones.
    """
    incomplete = {(need.source, need.split, need.group) for need in caches if need.rows}
    for cache in [cache for source in sources for cache in source.caches.values()]:
        for group in cache.groups:
            if (cache.source, cache.split, group) in incomplete:
                continue
            shard = rng.derive(seed, f"store check/{run}") % cache.store.shards
            if fault := cache.store.group(group).fault(shard):
                raise CorruptStore(
                    fault, where=str(cache.folder / group), cure=repair_hint(cache.folder)
                )


def longest_caption(sources: Sequence[Source]) -> int:
    """Number of tokens of the longest cached training caption, without hashing the shards."""
    longest = 1
    for source in sources:
        store = source.train.store.unverified()
        masks = [f"{prefix_of(n)}.mask" for n in range(variants_in(tuple(store.layout(ENCODINGS))))]
        for k in range(store.shards):
            for name in masks:
                mask = store.gather(name, list(store.rows(k)))
                longest = max(longest, int(mask.sum(1).max()))
    return longest
