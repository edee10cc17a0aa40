"""Cache files that may be lost: sealed by a hash, and never a reason to stop."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import DataError, DiskFull
from tinyflux_pl.core.file_lock import locked

SEAL_BYTES = 32


def read(file: Path | None) -> bytes:
    """The content that `write` stored; b"" if the file is missing or damaged."""
    content = b""
    with suppress(OSError):
        content = file.read_bytes() if file is not None and file.is_file() else b""
    seal, content = content[:SEAL_BYTES], content[SEAL_BYTES:]
    return content if hashlib.sha256(content).digest() == seal else b""


def write(file: Path, content: bytes) -> bool:
    """Write atomically unless another process is writing it; True if it was written.

    Failures are ignored: the next start does the work again.
    """
    with suppress(DataError, DiskFull, OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(file.parent, f".{file.name}.lock"):
            # of a writer that was killed
            for leftover in file.parent.glob(f".{file.name}.*.part"):
                leftover.unlink()
            files.write_bytes(file, hashlib.sha256(content).digest() + content)
        return True
    return False
