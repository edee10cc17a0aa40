"""Disk space for the missing shards of a store."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from torch import Tensor

from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import DiskFull

MARGIN = 1.02  # headers, and blocks that a file does not fill


def require_disk_space(store: CacheStore, group: str, sample: Mapping[str, Tensor]) -> int:
    """Bytes that the pending shards need, given rows like those of `sample` (rows, ...).

    Raises DiskFull if they do not fit.
    """
    row = sum(column[0].numel() * column.element_size() for column in sample.values())
    needed = row * sum(len(store.rows(k)) for k in store.pending(group))
    free = shutil.disk_usage(store.root).free
    if needed * MARGIN > free:
        what = f"{group!r} needs {needed / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free"
        cure = "free some space, or set paths.root=/another/disk"
        raise DiskFull(what, where=str(store.root), cure=cure)
    return needed
