"""Content hashes of images known to decode, so that they are checked once."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import PIL

from tinyflux_pl.cache.sample_keys import BYTES, digest
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import DataError, DiskFull
from tinyflux_pl.core.file_lock import locked
from tinyflux_pl.data.images.decode import COSTLY, DECODING_VERSION


class ValidatedImages:
    """Keys of contents that decoded without error, in one file between runs (or only in this
    process).

    A key holds the bytes' hashes, the limits on pixels and the versions of the decoders, so an
    entry is never wrong. A file that is damaged counts as empty: its images are decoded again.
    """

    def __init__(self, file: str | Path | None, max_pixels: int) -> None:
        self._file = None if file is None else Path(file)
        self._decoder = [DECODING_VERSION, PIL.__version__, max_pixels, COSTLY]
        self._keys = self._read()
        self._saved = len(self._keys)

    def holds(self, *hashes: str) -> bool:
        """True if an image (and its mask) with these hashes decoded without error."""
        return digest([self._decoder, hashes]) in self._keys

    def add(self, *hashes: str) -> None:
        """Add an image (and its mask) that decoded without error."""
        self._keys.add(digest([self._decoder, hashes]))

    def save(self) -> None:
        """Write the file atomically, if there are new keys and no other process is writing it.

        Failures are ignored: the file only saves time, and the next start decodes again.
        """
        if self._file is None or len(self._keys) == self._saved:
            return
        content = b"".join(sorted(self._keys))
        with suppress(DataError, DiskFull, OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with locked(self._file.parent, f".{self._file.name}.lock"):
                # of a writer that was killed
                for leftover in self._file.parent.glob(f".{self._file.name}.*.part"):
                    leftover.unlink()
                files.write_bytes(self._file, hashlib.sha256(content).digest() + content)
            self._saved = len(self._keys)

    def _read(self) -> set[bytes]:
        content = b""
        with suppress(OSError):
            content = (
                self._file.read_bytes() if self._file is not None and self._file.is_file() else b""
            )
        seal = content[:32]
        keys = content[32:]
        if hashlib.sha256(keys).digest() != seal:
            return set()
        return {keys[start : start + BYTES] for start in range(0, len(keys), BYTES)}
