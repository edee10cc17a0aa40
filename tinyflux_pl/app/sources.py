"""The run's data: prepare what is missing of each source's cache, then serve it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.app.compose import build
from tinyflux_pl.app.parts import Parts

SPLITS = ("train", "validation")


@dataclass
class Source:
    """One dataset: its records and the store of each split."""

    name: str
    weight: float
    records: dict[str, Any]
    stores: dict[str, Any]
    groups: dict[str, tuple[str, ...]]


def prepare(parts: Parts, rebuild: bool = False) -> list[Source]:
    """Encode and extract whatever a source's cache lacks, encoders and teachers one at a time."""
    data = parts.config["data"]
    sources = []
    for name, node in data["sources"].items():
        records = {split: build(node[split]) for split in SPLITS}
        stores = {s: _open(parts, name, records[s], Path(node["cache"]) / s, rebuild) for s in SPLITS}
        # Validation needs no teachers: its loss is that of the student alone.
        groups = {"train": ("encodings", *parts.experts), "validation": ("encodings",)}
        sources.append(Source(name, float(node.get("weight", 1.0)), records, stores, groups))
    _encode(parts, sources)
    _extract(parts, sources)
    return sources


def datasets(sources: list[Source], in_memory: bool) -> tuple[Any, Any]:
    """The training mixture and the validation mixture."""
    from tinyflux_pl.data.cached_dataset import CachedDataset
    from tinyflux_pl.data.mixture import Mixture

    def mixture(split: str) -> Any:
        sets = {
            i: CachedDataset(s.stores[split], [g for g in s.groups[split] if g != "encodings"], in_memory, i)
            for i, s in enumerate(sources)
        }
        return Mixture(sets)

    return mixture("train"), mixture("validation")


def cure(parts: Parts) -> str:
    """The command that makes the caches anew."""
    chosen = f"python extract.py data={parts.config['data']['name']} (and this run's other choices) rebuild=true"
    return f"{chosen}; or keep both: set data.sources.<name>.cache=another/folder"


def _open(parts: Parts, name: str, records: Any, root: Path, rebuild: bool) -> Any:
    from tinyflux_pl.data.cache_store import CacheStore

    if rebuild and (root / "manifest.json").exists():
        shutil.rmtree(root)
    return CacheStore.create(root, name, len(records), parts.config["data"]["shard_size"], records.fingerprint())


def _encode(parts: Parts, sources: list[Source]) -> None:
    from tinyflux_pl.extraction.encode import encode, encodings_fingerprint

    dtype = parts.config["data"]["store_dtype"]
    for source in sources:
        for split in SPLITS:
            store, records = source.stores[split], source.records[split]
            store.begin_group("encodings", encodings_fingerprint(records, parts.codec, parts.text, dtype), cure(parts))
            if not store.complete("encodings"):
                parts.codec.to(parts.device)
                parts.text.to(parts.device)
                with store.writing():
                    title = f"{source.name}/{split}"
                    encode(store, records, parts.codec, parts.text, getattr(torch, dtype), title, parts.device)
    parts.text.to("cpu")  # batches come to the module on the CPU


def _extract(parts: Parts, sources: list[Source]) -> None:
    from tinyflux_pl.extraction.encode import extract

    dtype = parts.config["data"]["store_dtype"]
    for name, expert in parts.experts.items():
        teacher = parts.teacher(name)
        shared = teacher.codec.fingerprint() == parts.codec.fingerprint()
        shared = shared and teacher.text.fingerprint() == parts.text.fingerprint()
        extractor = expert.extractor(teacher, parts.path, parts.config["seed"]).to(parts.device)
        computed = {"dtype": dtype, "precision": parts.precision}
        for source in sources:
            store, records = source.stores["train"], source.records["train"]
            store.begin_group(name, {**extractor.fingerprint(), **computed}, cure(parts))
            if not store.complete(name):
                with store.writing():
                    title = f"{source.name}/train"
                    codec, text = teacher.codec, teacher.text
                    chosen = getattr(torch, dtype), parts.precision, title
                    extract(store, records, extractor, codec, text, shared, *chosen)
        del teacher, extractor  # the next one may be as large
