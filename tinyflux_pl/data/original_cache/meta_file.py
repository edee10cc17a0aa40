"""meta.pt of a cache: its name, and the clocks of teachers in a cache that this project wrote."""

from __future__ import annotations

from pathlib import Path

import torch

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.torch_archive import read_archive
from tinyflux_pl.data.original_cache.part_file import ORIGIN
from tinyflux_pl.data.original_cache.parts import MAKE_AGAIN, META_FILE, PARTS

CLOCKS = ("matched", "literal")


def write_meta(folder: Path, name: str, clocks: dict[str, str]) -> None:
    """Write a cache's name, which the original reads, and the clock of each part with times."""
    torch.save({"name": name, "clocks": clocks}, folder / META_FILE)


def clocks_of(root: Path) -> dict[str, str]:
    """Part -> clock; empty for caches of the original, which names none."""
    path = root / META_FILE
    if not path.exists():
        return {}
    content = read_archive(path, DataError, MAKE_AGAIN, ORIGIN)
    clocks = content.get("clocks", {}) if isinstance(content, dict) else None
    if not isinstance(clocks, dict) or any(
        name not in PARTS or clock not in CLOCKS for name, clock in clocks.items()
    ):
        what = f"{path.name} holds no name and no clocks of teachers"
        raise DataError(what, where=str(path), cure=MAKE_AGAIN)
    return clocks
