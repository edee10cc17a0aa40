"""The run's data: prepare what is missing of each source's cache, then serve it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.app.caches.replacement import Replacement
from tinyflux_pl.app.caches.source_store import cure, opened, whole
from tinyflux_pl.app.components import Parts
from tinyflux_pl.cache.rebuild import KeptRows, carry_over
from tinyflux_pl.cache.store import ENCODINGS, CacheStore
from tinyflux_pl.config.build import build
from tinyflux_pl.core.errors import CorruptStore, StaleCache
from tinyflux_pl.core.file_lock import locked
from tinyflux_pl.data.records import caption_lengths
from tinyflux_pl.data.records.folder_listing import shared

SPLITS = ("train", "validation")
SMALL = 2**26  # bytes of a teacher's weights, below which threads within an operation gain little
MOST_LANES = 8
Records = dict[str, dict[str, Any]]  # source -> split -> its records


@dataclass
class Source:
    """One dataset: its records and the store of each split."""

    name: str
    weight: float
    records: dict[str, Any]
    stores: dict[str, CacheStore]
    groups: dict[str, tuple[str, ...]]
    places: dict[str, Replacement]
    made: dict[str, dict[str, int]] = field(default_factory=lambda: {split: {} for split in SPLITS})
    """Split -> group -> how many of its entries this run has made; the others were there."""


def prepare(parts: Parts, rebuild: bool = False, records: Records | None = None) -> list[Source]:
    """Encode and extract whatever a source's cache lacks, encoders and teachers one at a time.

    Everything that can be judged is judged before the first image is encoded. With `rebuild` the old
    caches stay until the new ones are whole, which take over every entry that is still right. `records` are
    the sources' own by split, where they have been built already.
    """
    if records is None:
        records = {name: records_of(node) for name, node in parts.config["data"]["sources"].items()}
    with ExitStack() as held:
        _lock(parts, rebuild, held)
        sources = [
            _source(parts, name, node, records[name], rebuild) for name, node in parts.config["data"]["sources"].items()
        ]
        _begin_encodings(parts, sources)
        extractors = {name: _begin_expert(parts, sources, name) for name in parts.experts}
        _encode(parts, sources)
        for name in list(extractors):
            _extract(parts, sources, name, extractors.pop(name))
        for source in sources:
            for split, place in source.places.items():
                _finish(source, split, place)
    return sources


def datasets(sources: list[Source], in_memory: bool) -> tuple[Any, Any]:
    """The training mixture and the validation mixture."""
    from tinyflux_pl.cache.dataset import CachedDataset
    from tinyflux_pl.cache.mixture import Mixture

    def mixture(split: str) -> Any:
        sets = {
            i: CachedDataset(s.stores[split], [g for g in s.groups[split] if g != ENCODINGS], in_memory, i)
            for i, s in enumerate(sources)
        }
        return Mixture(sets)

    return mixture("train"), mixture("validation")


def skipped(sources: list[Source]) -> list[str]:
    """The files that were left out by the user's leave, each once."""
    return list(dict.fromkeys(line for s in sources for r in s.records.values() for line in r.skipped))


def records_of(node: dict[str, Any]) -> dict[str, Any]:
    """The records of each split of a source."""
    with shared():
        records = {split: build(node[split]) for split in SPLITS}
    for each in records.values():
        each.require_one_kind()
    return records


def _lock(parts: Parts, rebuild: bool, held: ExitStack) -> None:
    """Hold each source's cache that is to be written: all of it, to the end, so that of two processes one goes on."""
    caches = {Path(node["cache"]): parts.groups(name) for name, node in parts.config["data"]["sources"].items()}
    for cache in sorted(caches):
        if rebuild or not all(whole(cache / split, groups) for split, groups in caches[cache].items()):
            cache.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(cache))


def _source(parts: Parts, name: str, node: dict[str, Any], records: dict[str, Any], rebuild: bool) -> Source:
    places = {split: Replacement(Path(node["cache"]) / split, rebuild) for split in SPLITS}
    stores = {split: opened(parts, name, records[split], places[split]) for split in SPLITS}
    return Source(name, float(node.get("weight", 1.0)), records, stores, parts.groups(name), places)


def _begin(parts: Parts, source: Source, split: str, group: str, fingerprint: dict[str, Any]) -> None:
    store = source.stores[split]
    try:
        store.begin_group(group, fingerprint, cure(parts, source.name))
    except StaleCache as error:
        if not source.places[split].pending:
            what = f"{error.what}; this concerns all {len(store):,} samples"
            raise StaleCache(what, where=error.where, cure=error.cure) from error
        store.remove_group(group)
        store.begin_group(group, fingerprint)


def _begin_encodings(parts: Parts, sources: list[Source]) -> None:
    from tinyflux_pl.extraction.encode import encodings_fingerprint

    fingerprint = encodings_fingerprint(parts.codec, parts.text, parts.config["data"]["store_dtype"])
    for source in sources:
        for split, records in source.records.items():
            _begin(parts, source, split, ENCODINGS, fingerprint)
            if not source.stores[split].complete(ENCODINGS):
                records.check()
                records.findings = [*records.findings, *caption_lengths.judge(records, parts.text)]


def _begin_expert(parts: Parts, sources: list[Source], name: str) -> Any:
    """Describe an expert's group in every source that has it; returns its extractor."""
    extractor = extractor_of(parts, name)
    for source in sources:
        if name in source.groups["train"]:
            old = source.places["train"].old
            precision = precision_of(parts, source.stores["train"] if old is None else old, name)
            _begin(parts, source, "train", name, expert_fingerprint(parts, extractor, precision))
    return extractor


def extractor_of(parts: Parts, name: str) -> Any:
    """What fills an expert's group, with its teacher."""
    return parts.experts[name].extractor(parts.teacher(name), parts.path, parts.config["teacher"]["seed"])


def precision_of(parts: Parts, store: CacheStore | None, name: str) -> str:
    """In which precision an expert's group is extracted: as teacher.precision says, else as it was begun.

    The precision of training decides it for a new group alone: what is cached does not change with it.
    """
    from tinyflux_pl.core import precision as formats

    asked = parts.config["teacher"].get("precision")
    if asked is not None:
        return formats.choose(asked, parts.config["hardware"]["accelerator"])
    try:
        begun = store.groups().get(name, {}) if store is not None else {}
    except CorruptStore:  # a rebuild names it and makes it anew; any other run has stopped before
        begun = {}
    return begun.get("precision", parts.precision)


def expert_fingerprint(parts: Parts, extractor: Any, precision: str | None = None) -> dict[str, Any]:
    """What decides an expert's group, extracted in `precision` (None: in that of training)."""
    computed = {"dtype": parts.config["data"]["store_dtype"], "precision": precision or parts.precision}
    return {**extractor.fingerprint(), **computed}


def _encode(parts: Parts, sources: list[Source]) -> None:
    from tinyflux_pl.extraction.encode import encode

    dtype, batch = _chosen(parts)
    for source in sources:
        for split, store in source.stores.items():
            if not store.complete(ENCODINGS):
                parts.codec.to(parts.device)
                parts.text.to(parts.device)
                title = f"{source.name}/{split}"
                kept = _kept(source, split, ENCODINGS)
                made = encode(
                    store, source.records[split], parts.codec, parts.text, dtype, title, parts.device, batch, kept
                )
                source.made[split][ENCODINGS] = made
    parts.text.to("cpu")  # batches come to the module on the CPU


def _extract(parts: Parts, sources: list[Source], name: str, extractor: Any) -> None:
    from tinyflux_pl.extraction.encode import extract

    given = [source for source in sources if name in source.groups["train"]]
    lacking = [source for source in given if not source.stores["train"].complete(name)]
    if not lacking:
        return
    teacher, (dtype, batch) = extractor.teacher, _chosen(parts)
    codec, text = teacher.codec.to(parts.device), teacher.text.to(parts.device)
    shared = codec.fingerprint() == parts.codec.fingerprint() and text.fingerprint() == parts.text.fingerprint()
    extractor.to(parts.device)
    extractor.max_batch = batch * len(extractor.t_buckets)
    beside = extractor.copies(_lanes(extractor) - 1)
    for source in lacking:
        store, records, title = source.stores["train"], source.records["train"], f"{source.name}/train"
        kept = _kept(source, "train", name)
        precision = store.groups()[name]["precision"]
        source.made["train"][name] = extract(
            store, records, extractor, codec, text, shared, dtype, precision, title, batch, kept, beside
        )


def _lanes(extractor: Any) -> int:
    """Copies of a teacher that work side by side: one a thread of the CPU, where the network is small."""
    small = sum(p.nbytes for p in extractor.teacher.denoiser.parameters()) <= SMALL
    return min(torch.get_num_threads(), MOST_LANES) if small and extractor.device.type == "cpu" else 1


def _chosen(parts: Parts) -> tuple[torch.dtype, int]:
    """The type that is stored, and how many images are encoded at once."""
    data = parts.config["data"]
    return getattr(torch, data["store_dtype"]), data.get("extraction_batch", 8)


def _kept(source: Source, split: str, group: str) -> KeptRows:
    """What a rebuild takes over; what is damaged in the old cache is said, and made anew."""
    title = f"{source.name}/{split}"
    kept = KeptRows(source.places[split].old, source.stores[split], group, title)
    for fault in kept.faults:
        print(f"{title}: nothing is kept of {fault}")
    return kept


def _finish(source: Source, split: str, place: Replacement) -> None:
    """End a rebuild: groups that this run has not asked for go along as far as they are still right."""
    if not place.pending:
        return
    store = source.stores[split]
    for folder in sorted(path.parent for path in place.root.glob("*/group.json")):
        if place.old is not None and folder.name not in source.groups[split]:
            try:
                store.begin_group(folder.name, place.old.group(folder.name).fingerprint)
            except (StaleCache, CorruptStore) as error:
                print(f"{source.name}/{split}: nothing is kept of {folder.name}: {error.what}")
                continue
            carry_over(_kept(source, split, folder.name), store)
    place.finish()
    source.stores[split] = CacheStore.open(place.folder)
