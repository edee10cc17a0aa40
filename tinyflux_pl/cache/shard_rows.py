"""The rows of each shard of a store."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


class ShardRows:
    """Shards of at most `shard_size` consecutive rows; none crosses from one segment to the next.

    `segments` are the lengths of the runs of rows that have one shape, in order; empty: one run.
    """

    def __init__(self, total: int, shard_size: int, segments: Sequence[int] = ()) -> None:
        self.segments = tuple(segments) or (total,)
        self._shard_size = shard_size
        ends = np.cumsum((0, *self.segments))
        starts = [np.arange(a, b, shard_size) for a, b in pairwise(ends)]
        self._edges = np.append(np.concatenate(starts), total)
        self.first_shards = tuple(np.cumsum([0, *map(len, starts[:-1])]).tolist())

    def __len__(self) -> int:
        return len(self._edges) - 1

    def of(self, k: int) -> range:
        """The rows of shard k."""
        return range(int(self._edges[k]), int(self._edges[k + 1]))

    def segment_of(self, k: int) -> int:
        """The segment of shard k."""
        return int(np.searchsorted(self.first_shards, k, side="right")) - 1

    def locate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The shard of each row, and its index there."""
        if len(self.segments) == 1:
            shard, row = np.divmod(index, self._shard_size)
            return shard, row
        shard = np.searchsorted(self._edges, index, side="right") - 1
        return shard, index - self._edges[shard]
