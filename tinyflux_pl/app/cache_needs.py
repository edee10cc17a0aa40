"""What the caches of a run hold, and what of them is still to be made: rows, bytes, files. Nothing is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.app import sources
from tinyflux_pl.app.parts import Parts
from tinyflux_pl.app.replacement import Replacement
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import CorruptStore
from tinyflux_pl.data.cache_store import ENCODINGS, CacheStore
from tinyflux_pl.data.cache_validity import mend, require_equal

Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]
SHARD_FILES = 2  # the shard and its record
CAPTION_BYTES = 72  # of a caption and its place, about


@dataclass(frozen=True)
class GroupNeed:
    """One group of one store: rows in all and to be made, and what those take."""

    source: str
    split: str
    store: Path
    group: str
    total: int
    rows: int
    bytes: int
    files: int


def layout(parts: Parts, group: str, masked: bool) -> Layout:
    """Type and row shape of everything that a group holds, from the specs of what will fill it."""
    stored = getattr(torch, parts.config["data"]["store_dtype"])
    if group != ENCODINGS:
        spec = parts.experts[group].spec
        return {f"{group}.{name}": (stored, (len(spec.t_buckets), *shape)) for name, shape in spec.shapes.items()}
    latent, text = parts.codec.latent_spec, parts.text.text_spec
    grid = tuple(side // latent.downsample for side in parts.image_size)
    columns: Layout = {
        "latents": (stored, (latent.channels, *grid)),
        "sample_ids": (torch.int64, ()),
        "text.tokens": (stored, (text.length, text.width)),
        "text.mask": (torch.bool, (text.length,)),
        "text.pooled": (stored, (text.pooled,)),
    }
    return {**columns, "masks": (stored, grid)} if masked else columns


def needs(parts: Parts, source: str, split: str, records: Any, masked: bool) -> list[GroupNeed]:
    """The groups of one split's store. Seals and sizes of all shards are checked: CorruptStore."""
    cache = Path(parts.config["data"]["sources"][source]["cache"]) / split
    store = CacheStore.open(cache) if (cache / "manifest.json").exists() else None
    total, shard = len(records), store.shard_size if store else parts.config["data"]["shard_size"]
    known = store.groups() if store else {}
    found = []
    for group in (ENCODINGS, *parts.experts) if split == "train" else (ENCODINGS,):
        pending = store.pending(group) if store and group in known else range(-(-total // shard))
        rows = sum(min(shard, total - k * shard) for k in pending)
        columns = layout(parts, group, masked).values()
        row = sum(dtype.itemsize * math.prod(shape) for dtype, shape in columns)
        row += CAPTION_BYTES if group == ENCODINGS else 0
        found.append(GroupNeed(source, split, cache, group, total, rows, rows * row, SHARD_FILES * len(pending)))
    return found


def judge(parts: Parts, records: sources.Records) -> None:
    """Raise StaleCache for what is there of the caches and was made from other inputs; writes nothing."""
    from tinyflux_pl.extraction.encode import encodings_fingerprint

    expected = {ENCODINGS: encodings_fingerprint(parts.codec, parts.text, parts.config["data"]["store_dtype"])}
    for name in parts.experts:
        expected[name] = sources.expert_fingerprint(parts, sources.extractor_of(parts, name))
    for name, node in parts.config["data"]["sources"].items():
        for split in sources.SPLITS:
            cache = Path(node["cache"]) / split
            if (cache / "manifest.json").exists():
                store = sources.opened(parts, name, records[name][split], Replacement(cache, rebuild=False))
                known = store.groups()
                cure = sources.cure(parts, name)
                for group in [g for g in expected if g in known and (g == ENCODINGS or split == "train")]:
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
