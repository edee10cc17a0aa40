"""Swap a rebuilt cache for the old one, which stays until the new one is complete."""

from __future__ import annotations

import os
import shutil
from functools import cached_property
from pathlib import Path

from tinyflux_pl.cache.sealed_json import MANIFEST_FILE
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import CorruptStore

NEW = ".new"
OLD = ".old"


def is_unfinished(root: str | Path) -> bool:
    """True if a swap stopped between its two renames; the next writer of the cache repairs it."""
    root = Path(root)
    return not root.exists() and root.with_name(root.name + OLD).exists()


class Replacement:
    """The store at `root`, and the folder that is written to.

    While `rebuild` replaces an existing store, that folder lies next to it.
    """

    def __init__(self, root: str | Path, rebuild: bool) -> None:
        self.root = Path(root)
        self._new = self.root.with_name(self.root.name + NEW)
        self._old = self.root.with_name(self.root.name + OLD)
        if is_unfinished(self.root):
            os.rename(self._old, self.root)
        self.pending = rebuild and (self.root / MANIFEST_FILE).exists()
        self.folder = self._new if self.pending else self.root

    @cached_property
    def old(self) -> CacheStore | None:
        """The store that is being replaced, to reuse its rows.

        None if its manifest or its keys are damaged.
        """
        if not self.pending:
            return None
        try:
            store = CacheStore.open(self.root)
            store.keys.table()
        except CorruptStore as error:
            print(f"nothing can be reused of {self.root}: {error.what}")
            return None
        return store

    def start_over(self) -> None:
        """Remove the remains of an earlier rebuild; never the old cache."""
        if self.pending:
            shutil.rmtree(self._new, ignore_errors=True)

    def finish(self) -> None:
        """Replace the old cache by the new one; at every moment one of them is complete on disk."""
        if not self.pending:
            return
        vars(self).pop("old", None)  # its memory-mapped files would keep the disk space in use
        shutil.rmtree(self._old, ignore_errors=True)
        os.rename(self.root, self._old)
        os.rename(self._new, self.root)
        shutil.rmtree(self._old)
        self.pending = False
        self.folder = self.root
