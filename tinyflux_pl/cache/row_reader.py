"""Rows of a group gathered from its shards, and the layout of each run of rows of one shape."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.cache.shard_rows import ShardRows
from tinyflux_pl.cache.shards import CacheGroup

Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def gathered(
    group: CacheGroup, name: str, rows: ShardRows, index: np.ndarray, first: int | None
) -> Tensor | None:
    """The rows `index` of one column, each cut to the `first` entries of its first axis.

    None if the group has no such column. Raises IndexError for rows that differ in shape.
    """
    shard, row = rows.locate(index)
    shards = np.unique(shard).tolist()
    mapped = {k: group.arrays(k) for k in shards}
    sample = mapped[shards[0]].get(name)
    if sample is None:
        return None
    if any(mapped[k][name].array.shape[1:] != sample.array.shape[1:] for k in shards[1:]):
        raise IndexError(f"{name}: the rows of one call must be of one shape")
    out, target = sample.empty(len(index), first)
    # with `first`, take would copy the shard's full rows
    if len(shards) == 1 and first is None:
        # mode="raise" would buffer; the indices are checked by the store
        np.take(sample.array, row, axis=0, out=target, mode="clip")
        return out
    for k in shards:
        source = mapped[k][name].head(first)
        # row by row: fancy assignment would copy every row twice
        for i in np.flatnonzero(shard == k):
            target[i] = source[row[i]]
    return out


def segment_layouts(group: CacheGroup, rows: ShardRows, prefix: str) -> list[tuple[range, Layout]]:
    """The rows of each run of one shape, in order, and their layout; names get the prefix."""
    layouts, start = [], 0
    for length, shard in zip(rows.segments, rows.first_shards, strict=True):
        layout = {prefix + name: kind for name, kind in group.layout(shard).items()}
        layouts.append((range(start, start + length), layout))
        start += length
    return layouts
