"""A cache built anew beside the old one, which stays until the new one is whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


class Replacement:
    """The store at `root`, and where to write: beside it while `rebuild` replaces one that is there."""

    def __init__(self, root: str | Path, rebuild: bool) -> None:
        self.root = Path(root)
        self._new, self._old = (self.root.with_name(f"{self.root.name}.{end}") for end in ("new", "old"))
        if self._old.exists() and not self.root.exists():  # stopped between the two renames of `finish`
            os.rename(self._old, self.root)
        self.pending = rebuild and (self.root / "manifest.json").exists()
        self.folder = self._new if self.pending else self.root

    def start_over(self) -> None:
        """Remove what an earlier rebuild of other inputs has left; never the old cache."""
        if self.pending:
            shutil.rmtree(self._new, ignore_errors=True)

    def finish(self) -> None:
        """Put the new cache in the old one's place."""
        if not self.pending:
            return
        shutil.rmtree(self._old, ignore_errors=True)
        os.rename(self.root, self._old)
        os.rename(self._new, self.root)
        shutil.rmtree(self._old)
        self.pending, self.folder = False, self.root
