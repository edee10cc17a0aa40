"""Rows of an old store that a rebuild can reuse: same sample key, same fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.cache.sealed_json import GROUP_FILE
from tinyflux_pl.cache.shards import VARIANT_SEPARATOR
from tinyflux_pl.cache.staleness import differences
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import CorruptStore
from tinyflux_pl.core.progress import track


class ReusableRows:
    """Maps each row of a new store's group to the equal row of the old store, if there is one.

    Rows are equal if their keys are, and the fingerprints of the two groups. Every shard with a
    reusable row is hashed first: nothing of a damaged one is reused, and `faults` names it.
    """

    def __init__(
        self, old: CacheStore | None, new: CacheStore, group: str, title: str = ""
    ) -> None:
        self.old = old
        self.group = group
        self.rows = np.full(len(new), -1, np.int64)  # rows of the old store; -1: to be computed
        self.faults: list[str] = []
        if old is None or not self._same_fingerprint(old, new):
            return
        new_keys = [key.tobytes() for key in new.keys.table()]
        needed = set(new_keys)
        old_keys = old.keys.table()
        row_of: dict[bytes, int] = {}
        shards = track(range(old.shards), f"{title}: verify the old {group}", old.shards, "shard")
        for k in shards:
            rows = {old_keys[row].tobytes(): row for row in old.rows(k)}
            if not needed.isdisjoint(rows) and self._is_intact(old, k):
                row_of |= rows
        self.rows[:] = [row_of.get(key, -1) for key in new_keys]

    def missing_rows(self, rows: Sequence[int]) -> list[int]:
        """The new store's rows that have to be computed."""
        return [row for row in rows if self.rows[row] < 0]

    def merge(self, rows: Sequence[int], computed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Columns of the new rows in order: reused from the old store, else from `computed`."""
        source = self.rows[list(rows)]
        reused = torch.from_numpy(source >= 0)
        if self.old is None or not reused.any():
            return dict(computed)
        columns = {}
        for name in self.old.layout(self.group):
            kept = self.old.gather(name, source[source >= 0])
            columns[name] = torch.empty((len(source), *kept.shape[1:]), dtype=kept.dtype)
            columns[name][reused] = kept
            if computed:
                columns[name][~reused] = computed[name]
        return columns

    def merge_captions(self, rows: Sequence[int], computed: Sequence[str]) -> list[str]:
        """Captions of the new rows, merged as the columns are."""
        source = self.rows[list(rows)]
        kept = [] if self.old is None else self.old.caption_variants(source[source >= 0])
        reused = map(VARIANT_SEPARATOR.join, kept)
        rest = iter(computed)
        return [next(reused) if row >= 0 else next(rest) for row in source]

    def _same_fingerprint(self, old: CacheStore, new: CacheStore) -> bool:
        if not (old.root / self.group / GROUP_FILE).exists() or not old.keys.sha256:
            return False
        try:
            fingerprint = old.group(self.group).fingerprint
        except CorruptStore as error:
            self.faults.append(f"{self.group}: {error.what}")
            return False
        return not differences(new.group(self.group).fingerprint, fingerprint)

    def _is_intact(self, old: CacheStore, k: int) -> bool:
        try:
            if old.group(self.group).record(k) is None:  # the old store was never finished
                return False
            old.group(self.group).arrays(k)
        except CorruptStore as error:
            self.faults.append(f"{self.group}/{error.what}")
            return False
        return True


def carry_over(reusable: ReusableRows, store: CacheStore) -> None:
    """Copy the shards of a group whose rows are all reusable, without a teacher."""
    for k in store.pending(reusable.group):
        rows = store.rows(k)
        if not reusable.missing_rows(rows):
            store.write_shard(reusable.group, k, reusable.merge(rows, {}))
