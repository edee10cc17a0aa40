"""The run's data: prepare what is missing of each source's cache, then serve it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.app.compose import build
from tinyflux_pl.app.parts import Parts
from tinyflux_pl.app.replacement import Replacement
from tinyflux_pl.core.errors import StaleCache
from tinyflux_pl.data.cache_store import ENCODINGS, CacheStore

SPLITS = ("train", "validation")
# What of a command line decides a cache, and so belongs to the command that makes it anew.
CHOICES = ("paths", "codec", "text", "path", "teacher", "experts", "data", "model", "seed", "hardware", "experiment")


@dataclass
class Source:
    """One dataset: its records and the store of each split."""

    name: str
    weight: float
    records: dict[str, Any]
    stores: dict[str, CacheStore]
    groups: dict[str, tuple[str, ...]]
    places: dict[str, Replacement]


def prepare(parts: Parts, rebuild: bool = False) -> list[Source]:
    """Encode and extract whatever a source's cache lacks, encoders and teachers one at a time.

    Everything that can be judged is judged before the first image is encoded. With `rebuild` the old
    caches stay until the new ones are whole.
    """
    sources = [_source(parts, name, node, rebuild) for name, node in parts.config["data"]["sources"].items()]
    _begin_encodings(parts, sources)
    for expert in parts.experts:
        _begin_expert(parts, sources, expert)
    _encode(parts, sources)
    for expert in parts.experts:
        _extract(parts, sources, expert)
    for source in sources:
        for split, place in source.places.items():
            if place.pending:
                place.finish()
                source.stores[split] = CacheStore.open(place.folder)
    return sources


def datasets(sources: list[Source], in_memory: bool) -> tuple[Any, Any]:
    """The training mixture and the validation mixture."""
    from tinyflux_pl.data.cached_dataset import CachedDataset
    from tinyflux_pl.data.mixture import Mixture

    def mixture(split: str) -> Any:
        sets = {
            i: CachedDataset(s.stores[split], [g for g in s.groups[split] if g != ENCODINGS], in_memory, i)
            for i, s in enumerate(sources)
        }
        return Mixture(sets)

    return mixture("train"), mixture("validation")


def skipped(sources: list[Source]) -> list[str]:
    """The files that were left out by the user's leave, each once."""
    found = [line for s in sources for records in s.records.values() for line in getattr(records, "skipped", [])]
    return list(dict.fromkeys(found))


def cure(parts: Parts, source: str) -> str:
    """The command that makes the caches anew, and the way to keep both."""
    chosen = [line for line in parts.config.get("overrides", []) if line.lstrip("+~").startswith(CHOICES)]
    node = parts.config["data"]["sources"][source]
    other = f"data.sources.{source}.cache={node['cache']}_2"
    return f"python extract.py {' '.join([*chosen, 'rebuild=true'])}; or keep both caches: add {other} to this run"


def _source(parts: Parts, name: str, node: dict[str, Any], rebuild: bool) -> Source:
    records = {split: build(node[split]) for split in SPLITS}
    places = {split: Replacement(Path(node["cache"]) / split, rebuild) for split in SPLITS}
    stores = {split: _open(parts, name, records[split], places[split]) for split in SPLITS}
    # Validation needs no teachers: its loss is that of the student alone.
    groups = {"train": (ENCODINGS, *parts.experts), "validation": (ENCODINGS,)}
    return Source(name, float(node.get("weight", 1.0)), records, stores, groups, places)


def _open(parts: Parts, name: str, records: Any, place: Replacement) -> CacheStore:
    said = name, len(records), parts.config["data"]["shard_size"], records.fingerprint()
    try:
        return CacheStore.create(place.folder, *said)
    except StaleCache as error:
        if not place.pending:
            raise StaleCache(error.what, where=error.where, cure=cure(parts, name)) from error
        place.start_over()
        return CacheStore.create(place.folder, *said)


def _begin(parts: Parts, source: Source, split: str, group: str, fingerprint: dict[str, Any]) -> None:
    store = source.stores[split]
    try:
        store.begin_group(group, fingerprint, cure(parts, source.name))
    except StaleCache:
        if not source.places[split].pending:
            raise
        store.remove_group(group)
        store.begin_group(group, fingerprint)


def _begin_encodings(parts: Parts, sources: list[Source]) -> None:
    from tinyflux_pl.extraction.encode import encodings_fingerprint

    dtype = parts.config["data"]["store_dtype"]
    for source in sources:
        for split, records in source.records.items():
            fingerprint = encodings_fingerprint(records, parts.codec, parts.text, dtype)
            _begin(parts, source, split, ENCODINGS, fingerprint)
            if not source.stores[split].complete(ENCODINGS) and hasattr(records, "check"):
                records.check()


def _begin_expert(parts: Parts, sources: list[Source], name: str) -> None:
    extractor = parts.experts[name].extractor(parts.teacher(name), parts.path, parts.config["teacher"]["seed"])
    computed = {"dtype": parts.config["data"]["store_dtype"], "precision": parts.precision}
    for source in sources:
        _begin(parts, source, "train", name, {**extractor.fingerprint(), **computed})


def _encode(parts: Parts, sources: list[Source]) -> None:
    from tinyflux_pl.extraction.encode import encode

    dtype = getattr(torch, parts.config["data"]["store_dtype"])
    for source in sources:
        for split, store in source.stores.items():
            if not store.complete(ENCODINGS):
                parts.codec.to(parts.device)
                parts.text.to(parts.device)
                with store.writing():
                    title = f"{source.name}/{split}"
                    encode(store, source.records[split], parts.codec, parts.text, dtype, title, parts.device)
    parts.text.to("cpu")  # batches come to the module on the CPU


def _extract(parts: Parts, sources: list[Source], name: str) -> None:
    from tinyflux_pl.extraction.encode import extract

    lacking = [source for source in sources if not source.stores["train"].complete(name)]
    if not lacking:
        return
    teacher = parts.teacher(name)
    codec, text = teacher.codec.to(parts.device), teacher.text.to(parts.device)
    shared = codec.fingerprint() == parts.codec.fingerprint() and text.fingerprint() == parts.text.fingerprint()
    extractor = parts.experts[name].extractor(teacher, parts.path, parts.config["teacher"]["seed"]).to(parts.device)
    chosen = getattr(torch, parts.config["data"]["store_dtype"]), parts.precision
    for source in lacking:
        store, records, title = source.stores["train"], source.records["train"], f"{source.name}/train"
        with store.writing():
            extract(store, records, extractor, codec, text, shared, *chosen, title)
