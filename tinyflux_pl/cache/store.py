"""A cache store: samples encoded once, in hashed shards, gathered by index in constant memory.

    store/manifest.json                        schema, name, total, shard size, lengths of the
                                               runs of one shape, records' fingerprint
    store/keys.bin                             a key of 16 bytes for each sample, by its content
    store/<group>/group.json                   the group's own fingerprint, by parts
    store/<group>/shard_00000.safetensors      rows 0 .. shard_size - 1 of the group's tensors; a
                                               shard holds rows of one shape
    store/<group>/shard_00000.json             its size, sha256, layout and inputs: written last

Groups ("encodings", "lune", "sol", ...) are written, and go stale, independently, so that an expert
can be added without encoding anything again.
"""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tinyflux_pl.cache import sample_keys
from tinyflux_pl.cache.manifest import Manifest
from tinyflux_pl.cache.row_reader import Layout, gathered, segment_layouts
from tinyflux_pl.cache.sealed_json import GROUP_FILE, MANIFEST_FILE
from tinyflux_pl.cache.shard_locks import remove_parts, shards_to_write
from tinyflux_pl.cache.shards import VARIANT_SEPARATOR, CacheGroup, shard_files
from tinyflux_pl.cache.staleness import plain, require_equal
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.file_lock import locked
from tinyflux_pl.core.interpreter import extraction

ENCODINGS = "encodings"
GROUP_NAME = re.compile(r"[a-z0-9_]+")
RESERVED_NAMES = ("text", "caption", "captions", "flipped")  # prefixes of columns of the encodings


class CacheStore:
    """The store in one folder. Reading is lazy; describing a group takes the store's lock."""

    def __init__(self, root: Path, manifest: Manifest, verify_on_read: bool = True) -> None:
        self.root = root
        self.name = manifest.name
        self.records = manifest.records
        self.total = manifest.total
        self.shard_size = manifest.shard_size
        self.keys = sample_keys.ShardKeys(
            root, manifest.keys, self.total, self.shard_size, manifest.segments
        )
        self.shards = self.keys.shards
        self._verify_on_read = verify_on_read
        self._groups: dict[str, CacheGroup] = {}
        self._is_locked = False

    @classmethod
    def create(
        cls,
        root: str | Path,
        name: str,
        total: int,
        shard_size: int,
        records: dict[str, Any],
        keys: Callable[[], np.ndarray] | None = None,
        segments: Sequence[int] = (),
    ) -> CacheStore:
        """Create the store, or resume an existing one (which keeps its own name and shard size).

        `records` is the records' fingerprint. `keys` returns the samples' keys (total, 16); without
        them a rebuild can reuse nothing of this store. `segments`: see ShardRows.
        Raises StaleCache if the existing store was made from other records.
        """
        root = Path(root)
        if (root / MANIFEST_FILE).exists():
            store = cls.open(root)
            store.require_records(total, records)
            return store
        if total < 1 or shard_size < 1:
            raise DataError(
                f"a store of {total} samples in shards of {shard_size}", where=str(root)
            )
        keys_sha256 = sample_keys.write(root, keys()) if keys else ""
        runs = tuple(segments) if len(segments) > 1 else ()
        manifest = Manifest(name, total, shard_size, plain(records), keys_sha256, runs)
        manifest.write(root)
        return cls(root, manifest)

    @classmethod
    def open(cls, root: str | Path, verify_on_read: bool = True) -> CacheStore:
        """Open a store; with `verify_on_read` each shard is hashed when it is first read."""
        root = Path(root)
        return cls(root, Manifest.read(root), verify_on_read)

    def unverified(self) -> CacheStore:
        """The same store without hashing shards on reading."""
        store = copy.copy(self)
        store._verify_on_read = False
        store._groups = {}
        return store

    def require_records(self, total: int, records: Mapping[str, Any]) -> None:
        """Raise StaleCache if the store was made from other records than these."""
        expected = {"total": total, "records": records}
        stored = {"total": self.total, "records": self.records}
        require_equal(expected, stored, "the store", str(self.root))

    def __len__(self) -> int:
        return self.total

    def rows(self, k: int) -> range:
        """The rows of shard k."""
        return self.keys.rows(k)

    @contextmanager
    def writing(self) -> Iterator[CacheStore]:
        """Hold the store's lock; the kernel frees it when its owner dies, so it is never stale."""
        if self._is_locked:
            yield self
            return
        with locked(self.root):
            self._is_locked = True
            try:
                yield self
            finally:
                self._is_locked = False

    def begin_group(self, group: str, fingerprint: Mapping[str, Any], cure: str = "") -> None:
        """Describe or resume a group; StaleCache if it was made from other inputs."""
        if not GROUP_NAME.fullmatch(group) or group in RESERVED_NAMES:
            raise DataError(f"not a valid group name: {group!r}", where=str(self.root))
        folder = self.root / group
        description = folder / GROUP_FILE
        if description.exists():
            cached = CacheGroup(folder, self.keys).fingerprint
            require_equal(fingerprint, cached, f"the cached {group!r}", str(folder), cure)
            if self.complete(group):  # nothing to write, so no lock: several runs may read it
                return
        with self.writing():
            self._remove_leftovers(folder)
            if not description.exists():
                files.write_sealed(
                    description, {"group": group, "fingerprint": plain(dict(fingerprint))}
                )

    def pending(self, group: str) -> list[int]:
        """The shards that are not yet complete and recorded."""
        return [k for k in range(self.shards) if self.group(group).record(k) is None]

    def shards_to_write(self, group: str, wait: Callable[[int], None]) -> Iterator[int]:
        """The pending shards that no other process writes (cache.shard_locks)."""
        return shards_to_write(self.group(group), self.pending(group), wait)

    def write_shard(
        self, group: str, k: int, tensors: Mapping[str, Tensor], captions: list[str] | None = None
    ) -> None:
        """Write rows(k): tensors (rows, ...), with or without the group's prefix."""
        if k not in range(self.shards):
            raise DataError(f"shard {k} of {self.shards}", where=str(self.root))
        columns = {name.removeprefix(f"{group}."): tensor for name, tensor in tensors.items()}
        self.group(group).write(k, columns, captions)

    def remove_group(self, group: str) -> None:
        """Delete a group and its shards."""
        with self.writing():
            (self.group(group).folder / GROUP_FILE).unlink()
            shutil.rmtree(self.root / group)
            self._groups.pop(group, None)

    # reading

    def groups(self) -> dict[str, dict[str, Any]]:
        """Group -> fingerprint."""
        names = sorted(path.parent.name for path in self.root.glob(f"*/{GROUP_FILE}"))
        return {name: CacheGroup(self.root / name, self.keys).fingerprint for name in names}

    def complete(self, group: str) -> bool:
        """True if every shard of the group is complete and recorded."""
        return (self.root / group / GROUP_FILE).exists() and not self.pending(group)

    def layout(self, group: str) -> Layout:
        """Key -> (dtype, shape of a row), keys as `gather` takes them; of the first segment."""
        return self.segment_layouts(group)[0][1]

    def segment_layouts(self, group: str) -> list[tuple[range, Layout]]:
        """The rows of each run of one shape, in order, and their layout as `layout` gives it."""
        prefix = "" if group == ENCODINGS else f"{group}."
        return segment_layouts(self.group(group), self.keys.rows_of, prefix)

    def gather(self, key: str, indices: Tensor | Sequence[int], first: int | None = None) -> Tensor:
        """Rows of one column in the stored dtype: "latents", "text.tokens", "lune.features", ...

        `first` keeps only that many entries of each row's first axis (captions are short, L is
        long). Raises CorruptStore if a shard is truncated, altered or missing.
        """
        group, name = self._resolve(key)
        index = np.asarray(indices, np.int64)
        if index.size == 0 or index.min() < 0 or index.max() >= self.total:
            raise IndexError(f"{key}: indices must be in 0..{self.total - 1} and at least one")
        rows = gathered(group, name, self.keys.rows_of, index, first)
        if rows is None:
            available = sorted(k for g in self.groups() for k in self.layout(g))
            raise KeyError(f"{key} is not in this store: it has {available}")
        return rows

    def captions(self, indices: Tensor | Sequence[int]) -> list[str]:
        """The (first) captions of these rows."""
        return [variants[0] for variants in self.caption_variants(indices)]

    def caption_variants(self, indices: Tensor | Sequence[int]) -> list[list[str]]:
        """Every caption of these rows."""
        group = self.group(ENCODINGS)
        shard, row = self.keys.rows_of.locate(np.asarray(indices, dtype=np.int64))
        rows = zip(shard.tolist(), row.tolist(), strict=True)
        return [group.caption(k, i).split(VARIANT_SEPARATOR) for k, i in rows]

    def group(self, group: str) -> CacheGroup:
        """A group's shards; DataError if the store has no such group."""
        if group not in self._groups:
            if not (self.root / group / GROUP_FILE).exists():
                cure = f"extract it first: {extraction()}"
                raise DataError(
                    f"the store has no group {group!r}", where=str(self.root), cure=cure
                )
            self._groups[group] = CacheGroup(self.root / group, self.keys, self._verify_on_read)
        return self._groups[group]

    def _remove_leftovers(self, folder: Path) -> None:
        """Remove partial files of a killed writer, and shards of an earlier, longer store."""
        for leftover in self.root.glob(".*.part"):
            leftover.unlink()
        remove_parts(folder)
        for shard, k in shard_files(folder).items():
            if k >= self.shards:
                shard.unlink()

    def _resolve(self, key: str) -> tuple[CacheGroup, str]:
        head, _, rest = key.partition(".")
        if (
            rest
            and head not in RESERVED_NAMES
            and (head in self._groups or (self.root / head / GROUP_FILE).exists())
        ):
            return self.group(head), rest
        return self.group(ENCODINGS), key
