"""One split of one source: its records, the groups that the run needs, and their store."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tinyflux_pl.app import run_choices
from tinyflux_pl.app.caches.replacement import Replacement
from tinyflux_pl.cache import sample_keys
from tinyflux_pl.cache.rebuild import ReusableRows, carry_over
from tinyflux_pl.cache.sealed_json import MANIFEST_FILE
from tinyflux_pl.cache.store import ENCODINGS, CacheStore
from tinyflux_pl.config.schema import DataJob
from tinyflux_pl.core.errors import CorruptStore, StaleCache
from tinyflux_pl.core.interpreter import extraction, repeating_choices

MAX_NAMED_SAMPLES = 3  # changed samples that a message names


def is_complete(folder: Path, groups: Sequence[str]) -> bool:
    """True if the store in `folder` exists and lacks no shard of the groups."""
    if not (folder / MANIFEST_FILE).exists():
        return False
    store = CacheStore.open(folder)
    return all(store.complete(group) for group in groups)


@dataclass
class SourceCache:
    """The records of one split and the store that caches them.

    Both are opened once and passed along. `groups` are those that the run needs, encodings first.
    Reading never creates anything: that is `create_store`, `begin_group` and `finish`, in this
    order, under the lock of the source's folder.
    """

    config: DataJob
    source: str
    split: str
    records: Any
    groups: tuple[str, ...]
    new_rows: dict[str, int] = field(default_factory=dict)
    """Group -> rows that this run has encoded or extracted; the others were cached or reused."""

    def __post_init__(self) -> None:
        self.folder = self.config.data.cache_of(self.source) / self.split
        self.replacement: Replacement | None = None

    @property
    def title(self) -> str:
        """source/split."""
        return f"{self.source}/{self.split}"

    @property
    def experts(self) -> tuple[str, ...]:
        """The groups that teachers fill."""
        return tuple(group for group in self.groups if group != ENCODINGS)

    @property
    def exists(self) -> bool:
        """True if there is a store to open."""
        return (self.folder / MANIFEST_FILE).exists()

    @cached_property
    def store(self) -> CacheStore:
        """The store, opened at the first use; DataError if there is none."""
        return CacheStore.open(self.folder)

    def close(self) -> None:
        """Close the store: another process may write or replace it before the next use."""
        vars(self).pop("store", None)

    @property
    def is_complete(self) -> bool:
        """True if no row has to be written; then several runs may read one cache."""
        return self.exists and all(self.store.complete(group) for group in self.groups)

    def require_same_records(self) -> None:
        """Raise StaleCache, naming changed samples, if the store was made from other records."""
        try:
            self.store.require_records(len(self.records), self.records.fingerprint())
        except StaleCache as error:
            what = f"{error.what}{self._changed_samples()}"
            raise StaleCache(what, where=error.where, cure=self.cure()) from error

    def cure(self) -> str:
        """The command that rebuilds the caches, and how to keep both the old and the new one."""
        node = self.config.data.sources[self.source]
        other = shlex.quote(f"data.sources.{self.source}.cache={Path(node.cache)}_2")
        with repeating_choices(run_choices.choice_words(self.config.flags, self.config.overrides)):
            line = extraction("rebuild=true")
        return f"{line}; or keep both caches: add {other} to this run"

    # writing

    def create_store(self, rebuild: bool) -> None:
        """Create the store, or resume one of the same records; StaleCache for one of other records.

        With `rebuild` a new store is written next to the old one, which serves until `finish`.
        """
        self.replacement = Replacement(self.folder, rebuild)
        if self.replacement.pending:
            self.close()
            try:
                self.store = self._create(self.replacement.folder)
            except (StaleCache, CorruptStore):  # left by an earlier rebuild from other inputs
                self.replacement.start_over()
                self.store = self._create(self.replacement.folder)
        elif self.exists:
            self.require_same_records()
        else:
            self.store = self._create(self.folder)

    def begin_group(self, group: str, fingerprint: dict[str, Any]) -> None:
        """Describe a group, or resume it; StaleCache if it was made from other inputs.

        In a rebuild, what an earlier rebuild left of such a group is removed instead.
        """
        try:
            self.store.begin_group(group, fingerprint, self.cure())
        except StaleCache as error:
            if not self._replacement.pending:
                what = f"{error.what}; this concerns all {len(self.store):,} samples"
                raise StaleCache(what, where=error.where, cure=error.cure) from error
            self.store.remove_group(group)
            self.store.begin_group(group, fingerprint)

    @property
    def old_store(self) -> CacheStore | None:
        """The store that a rebuild replaces, if it is readable."""
        return self._replacement.old

    def reusable_rows(self, group: str) -> ReusableRows:
        """Rows of the old store that a rebuild can reuse.

        Reports damaged shards, which it does not.
        """
        reusable = ReusableRows(self.old_store, self.store, group, self.title)
        for fault in reusable.faults:
            print(f"{self.title}: nothing can be reused of {fault}")
        return reusable

    def finish(self) -> None:
        """End a rebuild: copy valid shards of groups that this run does not need, then swap."""
        if not self._replacement.pending:
            return
        for description in sorted(self.folder.glob("*/group.json")):
            group = description.parent.name
            if self.old_store is None or group in self.groups:
                continue
            try:
                self.store.begin_group(group, self.old_store.group(group).fingerprint)
            except (StaleCache, CorruptStore) as error:
                print(f"{self.title}: nothing can be reused of {group}: {error.what}")
                continue
            carry_over(self.reusable_rows(group), self.store)
        self._replacement.finish()
        self.close()

    @property
    def _replacement(self) -> Replacement:
        assert self.replacement is not None, "create_store comes first"
        return self.replacement

    def _create(self, folder: Path) -> CacheStore:
        return CacheStore.create(
            folder,
            self.source,
            len(self.records),
            self.config.data.shard_size,
            self.records.fingerprint(),
            lambda: sample_keys.keys_of(self.records),
            [count for _, count in self.records.segments],
        )

    def _changed_samples(self) -> str:
        """Samples that the cache lacks, if their keys are known without reading every image."""
        if not sample_keys.keys_are_cheap(self.records):
            return ""
        cached = {key.tobytes() for key in self.store.keys.table()}
        keys = sample_keys.keys_of(self.records)
        changed = [i for i, key in enumerate(keys) if key.tobytes() not in cached]
        names = [self.records[i].source for i in changed[:MAX_NAMED_SAMPLES]]
        names += ["..."] * (len(changed) > MAX_NAMED_SAMPLES)
        count = f"; new or changed: {len(changed):,} of {len(self.records):,} samples"
        return f"{count} ({', '.join(names)})" if names else count
