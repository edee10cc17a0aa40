"""The store of one split of a source: opened, made, or refused with the command that makes it right."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from tinyflux_pl.app import own_choices
from tinyflux_pl.app.caches.replacement import Replacement
from tinyflux_pl.app.components import Parts
from tinyflux_pl.cache import sample_keys
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import CorruptStore, StaleCache
from tinyflux_pl.core.interpreter import choosing, extraction

NAMED = 3  # changed samples that a message names


def whole(folder: Path, groups: tuple[str, ...]) -> bool:
    """Whether there is nothing to write: several runs may read one cache."""
    if not (folder / "manifest.json").exists():
        return False
    store = CacheStore.open(folder)
    return all(store.complete(group) for group in groups)


def opened(parts: Parts, name: str, records: Any, place: Replacement) -> CacheStore:
    """The store of these records, made where there is none; StaleCache if it holds others."""
    shard_size, keys = parts.config["data"]["shard_size"], lambda: sample_keys.keys_of(records)
    said = name, len(records), shard_size, records.fingerprint(), keys
    try:
        return CacheStore.create(place.folder, *said)
    except (StaleCache, CorruptStore) as error:
        if place.pending:  # what an earlier rebuild has left
            place.start_over()
            return CacheStore.create(place.folder, *said)
        if isinstance(error, CorruptStore):
            raise
        what = f"{error.what}{_changed(records, place.folder)}"
        raise StaleCache(what, where=error.where, cure=cure(parts, name)) from error


def _changed(records: Any, folder: Path) -> str:
    """Which samples the cache does not have, where that can be told without reading every image."""
    if not sample_keys.are_quick(records):
        return ""
    held = {key.tobytes() for key in CacheStore.open(folder).keys.table()}
    changed = [i for i, key in enumerate(sample_keys.keys_of(records)) if key.tobytes() not in held]
    names = [records[i].source for i in changed[:NAMED]] + ["..."] * (len(changed) > NAMED)
    return f"; new or changed: {len(changed):,} of {len(records):,} samples" + (
        f" ({', '.join(names)})" if names else ""
    )


def cure(parts: Parts, source: str) -> str:
    """The command that makes the caches anew, and the way to keep both."""
    node = parts.config["data"]["sources"][source]
    other = shlex.quote(f"data.sources.{source}.cache={Path(node['cache'])}_2")
    with choosing(own_choices.words(parts.config)):
        line = extraction("rebuild=true")
    return f"{line}; or keep both caches: add {other} to this run"
