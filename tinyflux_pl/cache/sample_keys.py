"""Sample keys: 16 bytes that identify a row of a store by the content it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyflux_pl.cache.shard_rows import ShardRows
from tinyflux_pl.cache.staleness import repair_hint
from tinyflux_pl.core import files, fingerprint
from tinyflux_pl.core.errors import CorruptStore
from tinyflux_pl.core.progress import track
from tinyflux_pl.core.record import Record, Records

BYTES = 16
FILE = "keys.bin"


def keys_of(records: Records) -> np.ndarray:
    """The keys (n, 16) uint8 of all records, in order.

    Records that know their files' hashes implement `sample_keys()`; of others each image is read
    once.
    """
    descriptions = records.sample_keys()
    if descriptions is not None:
        return _table([digest(description) for description in descriptions])
    read = (records[i] for i in range(len(records)))
    tracked = track(read, f"{records.name}: compare", len(records), "image")
    return _table([key_of_record(record) for record in tracked])


def keys_are_cheap(records: Records) -> bool:
    """True if `keys_of` reads no image: hashes are known, or images are generated."""
    return not records.reads_files or records.sample_keys() is not None


def key_of_record(record: Record) -> bytes:
    """The key of one record: hash of its caption and all of its arrays."""
    arrays = {n: value for n, value in record.attributes.items() if isinstance(value, np.ndarray)}
    arrays |= {"image": record.image, "mask": record.mask, "hint": record.hint}
    arrays["hole"] = record.inpaint_mask  # the name in the keys of existing caches
    arrays |= {f"reference.{k}": picture for k, picture in enumerate(record.references)}
    arrays = {n: np.ascontiguousarray(a) for n, a in sorted(arrays.items()) if a is not None}
    shapes = [[name, str(array.dtype), list(array.shape)] for name, array in arrays.items()]
    texts = [*record.captions] if record.other_captions else record.caption
    return digest([texts, shapes], *(array.tobytes() for array in arrays.values()))


def digest(description: Any, *content: bytes) -> bytes:
    """16 bytes of the hash of plain data and of the bytes that follow it."""
    hasher = hashlib.blake2b(fingerprint.canonical(description).encode(), digest_size=BYTES)
    for part in content:
        hasher.update(part)
    return hasher.digest()


class ShardKeys:
    """The rows of each shard, and their keys: `keys.bin`, whose sha256 is in the manifest.

    A store may be without keys (sha256 ""): then a rebuild can reuse nothing of it. `segments`: see
    ShardRows.
    """

    def __init__(
        self, root: Path, sha256: str, total: int, shard_size: int, segments: Sequence[int] = ()
    ) -> None:
        self.file = root / FILE
        self.sha256 = sha256
        self.total = total
        self.rows_of = ShardRows(total, shard_size, segments)
        self.shards = len(self.rows_of)
        self._table: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}  # a worker process reads the file itself

    def rows(self, k: int) -> range:
        """The rows of shard k."""
        return self.rows_of.of(k)

    def table(self) -> np.ndarray:
        """All keys (total, 16) uint8; empty if the store has none.

        CorruptStore if the file is damaged.
        """
        if self._table is None:
            content = self.file.read_bytes() if self.sha256 and self.file.is_file() else b""
            is_intact = (
                len(content) == self.total * BYTES
                and hashlib.sha256(content).hexdigest() == self.sha256
            )
            if self.sha256 and not is_intact:
                what = f"{self.file.name} changed after it was written"
                raise CorruptStore(what, where=str(self.file), cure=repair_hint(self.file.parent))
            self._table = np.frombuffer(content, np.uint8).reshape(-1, BYTES)
        return self._table

    def of(self, k: int) -> str:
        """One hash over the keys of shard k and their positions; "" if the store has none."""
        rows = self.rows(k)
        keys = self.table()[rows.start : rows.stop]
        return digest([rows.start, rows.stop], keys.tobytes()).hex() if len(keys) else ""


def write(root: Path, keys: np.ndarray) -> str:
    """Write keys (n, 16) as a store's `keys.bin`; returns their sha256."""
    files.write_bytes(root / FILE, keys.tobytes())
    return hashlib.sha256(keys.tobytes()).hexdigest()


def _table(keys: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, BYTES)
