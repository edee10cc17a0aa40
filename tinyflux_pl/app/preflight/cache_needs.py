"""What the caches of a run hold, and what of them is still to be made: rows, bytes, files. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.app.caches import sources
from tinyflux_pl.app.caches.replacement import Replacement
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.preflight.in_memory_store import SampledStore
from tinyflux_pl.cache.staleness import mend, require_equal
from tinyflux_pl.cache.store import ENCODINGS, CacheStore
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import CorruptStore

SHARD_FILES = 2  # the shard and its record


@dataclass(frozen=True)
class GroupNeed:
    """One group of one store: rows in all, rows to be made, and their files."""

    source: str
    split: str
    store: Path
    group: str
    total: int
    rows: int
    files: int


def needs(parts: Parts, source: str, split: str, records: Any) -> list[GroupNeed]:
    """The groups of one split's store. Seals and sizes of all shards are checked: CorruptStore."""
    cache = Path(parts.config["data"]["sources"][source]["cache"]) / split
    store = CacheStore.open(cache) if (cache / "manifest.json").exists() else None
    total, shard = len(records), store.shard_size if store else parts.config["data"]["shard_size"]
    known = store.groups() if store else {}
    found = []
    for group in parts.groups(source)[split]:
        pending = store.pending(group) if store and group in known else range(-(-total // shard))
        rows = sum(min(shard, total - k * shard) for k in pending)
        found.append(GroupNeed(source, split, cache, group, total, rows, SHARD_FILES * len(pending)))
    return found


def samples(parts: Parts, records: sources.Records) -> list[sources.Source]:
    """The run's sources with a few samples in memory in place of their stores."""
    found = []
    for name, node in parts.config["data"]["sources"].items():
        groups = parts.groups(name)
        stores = {
            split: SampledStore(parts, records[name][split], [g for g in groups[split] if g != ENCODINGS])
            for split in sources.SPLITS
        }
        found.append(sources.Source(name, float(node.get("weight", 1.0)), records[name], stores, groups, {}))
    return found


def judge(parts: Parts, records: sources.Records) -> None:
    """Raise StaleCache for what is there of the caches and was made from other inputs; writes nothing."""
    from tinyflux_pl.extraction.encode import encodings_fingerprint

    expected = {ENCODINGS: encodings_fingerprint(parts.codec, parts.text, parts.config["data"]["store_dtype"])}
    extractors = {name: sources.extractor_of(parts, name) for name in parts.experts}
    for name, node in parts.config["data"]["sources"].items():
        for split in sources.SPLITS:
            cache = Path(node["cache"]) / split
            if (cache / "manifest.json").exists():
                store = sources.opened(parts, name, records[name][split], Replacement(cache, rebuild=False))
                known = store.groups()
                for expert, extractor in extractors.items():
                    precision = sources.precision_of(parts, store, expert)
                    expected[expert] = sources.expert_fingerprint(parts, extractor, precision)
                cure = sources.cure(parts, name)
                for group in [g for g in parts.groups(name)[split] if g in known]:
                    require_equal(expected[group], known[group], f"the cached {group!r}", str(cache), cure)


def check_stores(caches: Sequence[GroupNeed], seed: int, run: str) -> None:
    """Hash one shard of each whole group, which one by the run's name, so that runs take turns; CorruptStore."""
    for need in caches:
        if not need.rows:
            store = CacheStore.open(need.store)
            shard = rng.derive(seed, f"store check/{run}") % store.shards
            if fault := store.group(need.group).fault(shard):
                raise CorruptStore(fault, where=str(need.store / need.group), cure=mend(need.store))


def longest_caption(caches: Sequence[GroupNeed]) -> int:
    """Tokens of the longest caption that is cached for training; the bytes are not hashed for it."""
    longest = 1
    for need in caches:
        if need.split == "train" and need.group == ENCODINGS:
            store = CacheStore.open(need.store, verify_on_read=False)
            for k in range(store.shards):
                mask = store.gather("text.mask", list(store.rows(k)))
                longest = max(longest, int(mask.sum(1).max()))
    return longest
