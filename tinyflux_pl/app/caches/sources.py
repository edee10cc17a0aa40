"""The sources of a run: records and caches, opened once, and the datasets that they serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app.caches import precomputed_fit
from tinyflux_pl.app.caches.source_cache import SourceCache
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.experts import pathway
from tinyflux_pl.config.build import build
from tinyflux_pl.data.records.hinted import Hinted
from tinyflux_pl.data.records.limited import Limited
from tinyflux_pl.data.records.listings import shared

if TYPE_CHECKING:
    from tinyflux_pl.cache.mixture import Mixture

SPLITS = ("train", "validation")


@dataclass
class Source:
    """One dataset of a run: its sampling weight, and the cache of each split."""

    name: str
    weight: float
    caches: dict[str, SourceCache]

    @property
    def train(self) -> SourceCache:
        """The training split."""
        return self.caches["train"]

    @property
    def validation(self) -> SourceCache:
        """The validation split."""
        return self.caches["validation"]

    @property
    def folder(self) -> Path:
        """The folder of both splits."""
        return self.train.folder.parent

    @property
    def is_complete(self) -> bool:
        """True if no row of either split has to be written for this run."""
        return all(cache.is_complete for cache in self.caches.values())


def open_sources(parts: Parts, records: dict[str, dict[str, Any]] | None = None) -> list[Source]:
    """The run's sources.

    `records`: source -> split -> records, where they have been built already. Raises SpecMismatch
    and ConfigError for columns of theirs that do not fit the run's parts.
    """
    data = parts.config.data
    nodes = data.sources
    if records is None:
        records = {
            name: build_records(node.splits, data.hint, data.limit) for name, node in nodes.items()
        }
    pathway.check_records(parts.config, records)
    sources = []
    for name, node in nodes.items():
        caches = {
            split: SourceCache(parts.config, name, split, records[name][split], groups)
            for split, groups in parts.groups(name).items()
        }
        precomputed_fit.require_fitting(parts, list(caches.values()))
        sources.append(Source(name, node.weight, caches))
    return sources


def build_records(
    nodes: dict[str, Any], hint: str | None = None, limit: int | None = None
) -> dict[str, Any]:
    """Split -> records, from the configuration of a source, with the maps of `hint`.

    One listing of a folder serves both splits. `limit`: of each split at most so many.
    """
    with shared():
        records = {split: build(nodes[split]) for split in SPLITS}
    if limit is not None:
        records = {split: Limited(each, limit) for split, each in records.items()}
    if hint is not None:
        records = {split: Hinted(each, hint) for split, each in records.items()}
    for each in records.values():
        each.require_one_kind()
    return records


def datasets(sources: list[Source], in_memory: bool, seed: int = 0) -> tuple[Mixture, Mixture]:
    """The training mixture and the validation mixture, which has no groups of teachers.

    `seed` decides the captions of steps.
    """
    from tinyflux_pl.cache.dataset import CachedDataset
    from tinyflux_pl.cache.mixture import Mixture

    def mixture(split: str) -> Mixture:
        caches = [source.caches[split] for source in sources]
        return Mixture(
            {
                i: CachedDataset(c.store, c.experts if split == "train" else (), in_memory, i, seed)
                for i, c in enumerate(caches)
            }
        )

    return mixture("train"), mixture("validation")


def skipped(sources: list[Source]) -> list[str]:
    """The files that were skipped with the user's consent, each once."""
    records = [cache.records for source in sources for cache in source.caches.values()]
    return list(dict.fromkeys(line for each in records for line in each.skipped))
