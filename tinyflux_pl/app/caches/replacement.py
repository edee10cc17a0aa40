"""A cache built anew beside the old one, which stays until the new one is whole."""

from __future__ import annotations

import os
import shutil
from functools import cached_property
from pathlib import Path

from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core.errors import CorruptStore

NEW, OLD = ".new", ".old"


class Replacement:
    """The store at `root`, and where to write: beside it while `rebuild` replaces one that is there."""

    def __init__(self, root: str | Path, rebuild: bool) -> None:
        self.root = Path(root)
        self._new, self._old = (self.root.with_name(f"{self.root.name}{end}") for end in (NEW, OLD))
        if self._old.exists() and not self.root.exists():  # stopped between the two renames of `finish`
            os.rename(self._old, self.root)
        self.pending = rebuild and (self.root / "manifest.json").exists()
        self.folder = self._new if self.pending else self.root

    @cached_property
    def old(self) -> CacheStore | None:
        """The store that is being replaced, for what can be kept of it; None where its very manifest is damaged."""
        if not self.pending:
            return None
        try:
            store = CacheStore.open(self.root)
            store.keys.table()
        except CorruptStore as error:
            print(f"nothing is kept of {self.root}: {error.what}")
            return None
        return store

    def start_over(self) -> None:
        """Remove what an earlier rebuild of other inputs has left; never the old cache."""
        if self.pending:
            shutil.rmtree(self._new, ignore_errors=True)

    def finish(self) -> None:
        """Put the new cache in the old one's place."""
        if not self.pending:
            return
        vars(self).pop("old", None)  # its mapped files would hold the disk's room
        shutil.rmtree(self._old, ignore_errors=True)
        os.rename(self.root, self._old)
        os.rename(self._new, self.root)
        shutil.rmtree(self._old)
        self.pending, self.folder = False, self.root
