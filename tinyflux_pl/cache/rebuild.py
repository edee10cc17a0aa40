"""Which rows of an old store a rebuild takes over as they are: those of the same sample, made in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.cache.staleness import differences
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import CorruptStore
from tinyflux_pl.core.progress import track


class KeptRows:
    """Of each row of a new store's group the row of the old store that is the same, if there is one.

    Rows are the same when their keys are equal and the fingerprints of the two groups are. Every shard of
    which something is to be kept is hashed first: nothing is kept of a damaged one, and `faults` names it.
    """

    def __init__(self, old: CacheStore | None, new: CacheStore, group: str, title: str = "") -> None:
        self.old, self.group = old, group
        self.rows = np.full(len(new), -1, np.int64)  # in the old store; -1: to be made
        self.faults: list[str] = []
        if old is None or not self._alike(old, new):
            return
        wanted, held = [key.tobytes() for key in new.keys.table()], old.keys.table()
        known, places = set(wanted), dict[bytes, int]()
        for k in track(range(old.shards), f"{title}: verify the old {group}", old.shards, "shard"):
            rows = {held[row].tobytes(): row for row in old.rows(k)}
            if not known.isdisjoint(rows) and self._whole(old, k):
                places |= rows
        self.rows[:] = [places.get(key, -1) for key in wanted]

    def anew(self, rows: Sequence[int]) -> list[int]:
        """Those of the new store's rows that have to be made."""
        return [row for row in rows if self.rows[row] < 0]

    def joined(self, rows: Sequence[int], made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The columns of the new rows: kept ones as the old store has them, and `made`, in order, for the others."""
        source = self.rows[list(rows)]
        kept = torch.from_numpy(source >= 0)
        if self.old is None or not kept.any():
            return dict(made)
        columns = {}
        for name, (dtype, shape) in self.old.layout(self.group).items():
            columns[name] = torch.empty((len(source), *shape), dtype=dtype)
            columns[name][kept] = self.old.gather(name, source[source >= 0])
            if made:
                columns[name][~kept] = made[name]
        return columns

    def captions(self, rows: Sequence[int], made: Sequence[str]) -> list[str]:
        """The captions of the new rows, joined as the columns are."""
        source, rest = self.rows[list(rows)], iter(made)
        kept = iter(self.old.captions(source[source >= 0]) if self.old is not None else ())
        return [next(kept) if row >= 0 else next(rest) for row in source]

    def _alike(self, old: CacheStore, new: CacheStore) -> bool:
        """Whether rows of the two groups can be the same at all."""
        if not (old.root / self.group / "group.json").exists() or not old.keys.sha256:
            return False
        try:
            found = old.group(self.group).fingerprint
        except CorruptStore as error:
            self.faults.append(f"{self.group}: {error.what}")
            return False
        return not differences(new.group(self.group).fingerprint, found)

    def _whole(self, old: CacheStore, k: int) -> bool:
        try:
            if old.group(self.group).record(k) is None:  # the old store was never finished
                return False
            old.group(self.group).arrays(k)
        except CorruptStore as error:
            self.faults.append(f"{self.group}/{error.what}")
            return False
        return True


def carry_over(kept: KeptRows, store: CacheStore) -> None:
    """Copy the shards of which every row is kept, of a group without a teacher at hand; others stay pending."""
    for k in store.pending(kept.group):
        rows = store.rows(k)
        if not kept.anew(rows):
            store.write_shard(kept.group, k, kept.joined(rows, {}))
