"""What each row of a store was made from: a key of 16 bytes a sample, by content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyflux_pl.cache.staleness import repair_hint
from tinyflux_pl.core import files, fingerprint
from tinyflux_pl.core.errors import CorruptStore
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.protocols import Record, Records

BYTES = 16
FILE = "keys.bin"


def keys_of(records: Records) -> np.ndarray:
    """The keys (n, 16) uint8 of all records, in order.

    Records that know their files' hashes give `sample_keys()`; of others each image is read once.
    """
    known = records.sample_keys()
    if known is not None:
        return _table([digest(said) for said in known])
    read = (records[i] for i in range(len(records)))
    return _table([of_record(record) for record in track(read, f"{records.name}: compare", len(records), "image")])


def keys_are_cheap(records: Records) -> bool:
    """True if `keys_of` reads no image from disk: hashes are known, or images are drawn by rule."""
    return not records.reads_files or records.sample_keys() is not None


def of_record(record: Record) -> bytes:
    """The key of one record: its caption, and every array in it."""
    named = {name: value for name, value in record.attributes.items() if isinstance(value, np.ndarray)}
    named |= {"image": record.image, "mask": record.mask, "hole": record.hole}
    named |= {f"reference.{k}": picture for k, picture in enumerate(record.references)}
    held = {name: np.ascontiguousarray(value) for name, value in sorted(named.items()) if value is not None}
    shapes = [[name, str(value.dtype), list(value.shape)] for name, value in held.items()]
    return digest([record.caption, shapes], *(value.tobytes() for value in held.values()))


def digest(said: Any, *content: bytes) -> bytes:
    """16 bytes of the hash of plain data and of the bytes that follow it."""
    found = hashlib.blake2b(fingerprint.canonical(said).encode(), digest_size=BYTES)
    for part in content:
        found.update(part)
    return found.digest()


class ShardKeys:
    """Which samples lie in which shard, and their keys: `keys.bin`, whose sha256 the manifest holds.

    A store may be without keys (sha256 ""): then a rebuild can keep nothing of it.
    """

    def __init__(self, root: Path, sha256: str, total: int, shard_size: int) -> None:
        self.file, self.sha256, self.total, self.shard_size = root / FILE, sha256, total, shard_size
        self.shards = -(-total // shard_size)
        self._table: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}  # a worker process reads the file itself

    def rows(self, k: int) -> range:
        """The samples of shard k."""
        return range(k * self.shard_size, min((k + 1) * self.shard_size, self.total))

    def table(self) -> np.ndarray:
        """All keys (total, 16) uint8; none where the store has none. CorruptStore if they are not those written."""
        if self._table is None:
            content = self.file.read_bytes() if self.sha256 and self.file.is_file() else b""
            whole = len(content) == self.total * BYTES and hashlib.sha256(content).hexdigest() == self.sha256
            if self.sha256 and not whole:
                what = f"{self.file.name} is not what was written"
                raise CorruptStore(what, where=str(self.file), cure=repair_hint(self.file.parent))
            self._table = np.frombuffer(content, np.uint8).reshape(-1, BYTES)
        return self._table

    def of(self, k: int) -> str:
        """One hash over the keys of shard k and their place; "" where the store has none."""
        rows = self.rows(k)
        mine = self.table()[rows.start : rows.stop]
        return digest([rows.start, rows.stop], mine.tobytes()).hex() if len(mine) else ""


def write(root: Path, keys: np.ndarray) -> str:
    """Write keys (n, 16) as a store's `keys.bin`; returns their sha256."""
    files.write_bytes(root / FILE, keys.tobytes())
    return hashlib.sha256(keys.tobytes()).hexdigest()


def _table(keys: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, BYTES)
