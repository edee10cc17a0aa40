"""Content hashes of images that decode without error, so that they are checked once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import PIL

from tinyflux_pl.cache.sample_keys import BYTES
from tinyflux_pl.core import fingerprint, sealed_file
from tinyflux_pl.data.images.decode import COSTLY, DECODING_VERSION


class ValidatedImages:
    """Keys of contents that decoded without error, stored in one file between runs.

    Without a file they last only for this process. A key holds the bytes' hashes, the limits on
    pixels and the versions of the decoders, so an entry is never wrong. A file that is damaged
    counts as empty: its images are decoded again.
    """

    def __init__(self, file: str | Path | None, max_pixels: int) -> None:
        self._file = None if file is None else Path(file)
        self.decoder = [DECODING_VERSION, PIL.__version__, max_pixels, COSTLY]
        self._start = f"[{fingerprint.canonical(self.decoder)},["
        self._keys = self._read()
        self._saved = len(self._keys)

    def holds(self, *hashes: str) -> bool:
        """True if an image (and its mask) with these hashes decoded without error."""
        return self._key(hashes) in self._keys

    def add(self, *hashes: str) -> None:
        """Add an image (and its mask) that decoded without error."""
        self._keys.add(self._key(hashes))

    def save(self) -> None:
        """Write the file atomically, if there are new keys and no other process is writing it.

        Failures are ignored: the file only saves time, and the next start decodes again.
        """
        if self._file is None or len(self._keys) == self._saved:
            return
        if sealed_file.write(self._file, b"".join(sorted(self._keys))):
            self._saved = len(self._keys)

    def _key(self, hashes: tuple[str, ...]) -> bytes:
        """cache.sample_keys.digest of [decoder, hashes], of which the first part never changes."""
        quoted = ",".join(f'"{text}"' for text in hashes)
        text = f"{self._start}{quoted}]]"
        return hashlib.blake2b(text.encode(), digest_size=BYTES).digest()

    def _read(self) -> set[bytes]:
        keys = sealed_file.read(self._file)
        return {keys[start : start + BYTES] for start in range(0, len(keys), BYTES)}
