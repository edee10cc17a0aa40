"""The contract of a codec or text encoder whose weights lie in a release's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class ReleaseWriter(Protocol):
    """Writes its weights, and what belongs to them, where a release's folder has them."""

    def write_release(self, folder: Path) -> None: ...
