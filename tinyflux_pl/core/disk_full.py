"""A full disk as an error with needed and free bytes."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tinyflux_pl.core.errors import DiskFull

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "a limit on the size of files is reached (ulimit -f)",
}


@contextmanager
def disk_full_explained(path: Path, needed: int) -> Generator[None]:
    """Convert an out-of-space error of the block to DiskFull with needed and free bytes."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        free = shutil.disk_usage(folder).free
        raise DiskFull(
            f"no space to write {path.name}: {FULL[error.errno]}; it needs {needed:,} bytes, "
            f"{free:,} bytes are free; "
            "the previous content is unchanged",
            where=str(path.parent),
            cure="free some space, or set another folder with paths.root=/another/disk",
        ) from error
