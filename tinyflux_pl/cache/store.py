"""A cache store: samples encoded once, kept as hashed shards, gathered by index in constant memory.

    store/manifest.json                        schema, name, total, shard size, fingerprint of the records
    store/keys.bin                             what each sample was made from, 16 bytes apiece
    store/<group>/group.json                   the group's own fingerprint, by parts
    store/<group>/shard_00000.safetensors      rows 0 .. shard_size - 1 of the group's tensors
    store/<group>/shard_00000.json             its size, sha256, layout and inputs: written last

Groups ("encodings", "lune", "sol", ...) are written and go stale apart, so that an expert can be
added without encoding anything again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.cache import sample_keys
from tinyflux_pl.cache.shards import CAPTION_BYTES, CAPTION_ENDS, CacheGroup, read_sealed, shard_files, write_sealed
from tinyflux_pl.cache.staleness import mend, plain, rebuild, require_equal
from tinyflux_pl.core.errors import CorruptStore, DataError, DiskFull
from tinyflux_pl.core.file_lock import locked
from tinyflux_pl.core.interpreter import extraction

SCHEMA = 2
MANIFEST = {"name": str, "total": int, "shard_size": int, "records": dict, "keys": str}
ENCODINGS = "encodings"
MOST_SAMPLES, MOST_SHARDS = 2**32, 10**6  # of one store: more is a manifest that nobody can have filled


class CacheStore:
    """The store in one folder. Reading is lazy; writing takes the store's lock."""

    def __init__(self, root: Path, manifest: dict[str, Any], verify_on_read: bool = True) -> None:
        self.root, self.name, self.records = root, manifest["name"], manifest["records"]
        self.total, self.shard_size = int(manifest["total"]), int(manifest["shard_size"])
        self.keys = sample_keys.ShardKeys(root, manifest["keys"], self.total, self.shard_size)
        self.shards = self.keys.shards
        self._verify_on_read = verify_on_read
        self._groups: dict[str, CacheGroup] = {}
        self._lock_depth = 0

    @classmethod
    def create(
        cls,
        root: str | Path,
        name: str,
        total: int,
        shard_size: int,
        records: dict[str, Any],
        keys: Callable[[], np.ndarray] | None = None,
    ) -> CacheStore:
        """Make the store, or resume the one that is there (which keeps its own name and shard size).

        `keys` gives the samples' keys (total, 16); without them a rebuild can keep nothing of this store.
        Raises StaleCache when the one that is there was made from other records.
        """
        root = Path(root)
        if (root / "manifest.json").exists():
            store = cls.open(root)
            asked, found = {"total": total, "records": records}, {"total": store.total, "records": store.records}
            require_equal(asked, found, "the store", str(root))
            return store
        if total < 1 or shard_size < 1:
            raise DataError(f"a store of {total} samples in shards of {shard_size}", where=str(root))
        manifest = {"name": name, "total": total, "shard_size": shard_size, "records": plain(records)}
        manifest["keys"] = sample_keys.write(root, keys()) if keys else ""
        write_sealed(root / "manifest.json", {"schema": SCHEMA, **manifest})
        return cls(root, manifest)

    @classmethod
    def open(cls, root: str | Path, verify_on_read: bool = True) -> CacheStore:
        """Open an existing store. `verify_on_read` hashes each shard once, when it is first read."""
        root, file = Path(root), Path(root) / "manifest.json"
        if not file.exists():
            raise DataError("there is no cache here", where=str(root), cure=f"make one: {extraction()}")
        schema = read_sealed(file, root, {"schema": int})["schema"]
        if schema != SCHEMA:
            raise CorruptStore(f"schema {schema}; this version reads {SCHEMA}", where=str(root), cure=rebuild())
        manifest = read_sealed(file, root, MANIFEST)
        if min(manifest["total"], manifest["shard_size"]) < 1:
            raise CorruptStore("manifest.json holds no number of samples", where=str(file), cure=mend(root))
        total, shards = manifest["total"], -(-manifest["total"] // manifest["shard_size"])
        if total > MOST_SAMPLES or shards > MOST_SHARDS:
            what = f"manifest.json claims {total:,} samples in {shards:,} shards"
            raise CorruptStore(what, where=str(file), cure=mend(root))
        return cls(root, manifest, verify_on_read)

    def __len__(self) -> int:
        return self.total

    def rows(self, k: int) -> range:
        """The samples of shard k."""
        return self.keys.rows(k)

    @contextmanager
    def writing(self) -> Iterator[CacheStore]:
        """Hold the store's lock. The kernel frees it when its owner dies, so no lock is ever stale."""
        if self._lock_depth:
            self._lock_depth += 1
            try:
                yield self
            finally:
                self._lock_depth -= 1
            return
        with locked(self.root):
            self._lock_depth = 1
            try:
                yield self
            finally:
                self._lock_depth = 0

    def begin_group(self, group: str, fingerprint: Mapping[str, Any], cure: str = "") -> None:
        """Describe a group, or resume it; StaleCache if it is there and was made from other inputs."""
        if not re.fullmatch(r"[a-z0-9_]+", group) or group in ("text", "captions"):
            raise DataError(f"not a name for a group: {group!r}", where=str(self.root))
        description = self.root / group / "group.json"
        if description.exists():
            found = CacheGroup(description.parent, self.keys).fingerprint
            require_equal(fingerprint, found, f"the cached {group!r}", str(description.parent), cure)
            if self.complete(group):  # nothing to write, so no lock: several runs may read one store
                return
        with self.writing():
            self._sweep(description.parent)
            if not description.exists():
                write_sealed(description, {"group": group, "fingerprint": plain(dict(fingerprint))})

    def pending(self, group: str) -> list[int]:
        """The shards that are not yet whole and recorded."""
        return [k for k in range(self.shards) if self.group(group).record(k) is None]

    def write_shard(self, group: str, k: int, tensors: Mapping[str, Tensor], captions: list[str] | None = None) -> None:
        """Write rows(k) of a group: tensors (rows, ...), named with or without the group's prefix."""
        if k not in range(self.shards):
            raise DataError(f"shard {k} of {self.shards}", where=str(self.root))
        bare = {name.removeprefix(f"{group}."): tensor for name, tensor in tensors.items()}
        with self.writing():
            self.group(group).write(k, bare, captions)

    def remove_group(self, group: str) -> None:
        """Delete a group and all its shards, to write it anew."""
        with self.writing():
            (self.group(group).folder / "group.json").unlink()
            shutil.rmtree(self.root / group)
            self._groups.pop(group, None)

    def require_room(self, group: str, sample: Mapping[str, Tensor]) -> int:
        """Bytes that the pending shards need, judged by rows like `sample`'s; DiskFull if they do not fit."""
        row = sum(t[0].numel() * t.element_size() for t in sample.values())
        needed = row * sum(len(self.rows(k)) for k in self.pending(group))
        free = shutil.disk_usage(self.root).free
        if needed * 1.02 > free:
            what = f"{group!r} needs {needed / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free"
            raise DiskFull(what, where=str(self.root), cure="free some space, or set paths.root=/another/disk")
        return needed

    # reading

    def groups(self) -> dict[str, dict[str, Any]]:
        """Each group's fingerprint."""
        found = sorted(self.root.glob("*/group.json"))
        return {path.parent.name: CacheGroup(path.parent, self.keys).fingerprint for path in found}

    def complete(self, group: str) -> bool:
        """Whether every shard of the group is whole and recorded."""
        return (self.root / group / "group.json").exists() and not self.pending(group)

    def layout(self, group: str) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Key -> type and row shape, keys as `gather` takes them."""
        prefix = "" if group == ENCODINGS else f"{group}."
        return {prefix + name: kind for name, kind in self.group(group).layout().items()}

    def gather(self, key: str, indices: Tensor | Sequence[int], first: int | None = None) -> Tensor:
        """Rows of one tensor in the stored type: "latents", "text.tokens", "lune.features", ...

        `first` keeps only that many entries of each row's first axis (captions are short, L is long).
        Raises CorruptStore when a shard is torn, altered or missing.
        """
        group, name = self._resolve(key)
        index = np.asarray(indices, dtype=np.int64)
        if index.size == 0 or index.min() < 0 or index.max() >= self.total:
            raise IndexError(f"{key}: indices must be in 0..{self.total - 1} and at least one")
        shard, row = np.divmod(index, self.shard_size)
        touched = np.unique(shard)
        mapped = {int(k): group.arrays(int(k)) for k in touched}
        sample = next(iter(mapped.values())).get(name)
        if sample is None:
            raise KeyError(
                f"{key} is not in this store: it has {sorted(k for g in self.groups() for k in self.layout(g))}"
            )
        out, target = sample.empty(len(index), first)
        if len(touched) == 1 and first is None:  # of a part of each row it would copy the whole shard
            np.take(sample.array, row, axis=0, out=target, mode="clip")  # "raise" would buffer; checked above
            return out
        for k in touched.tolist():
            source = mapped[k][name].head(first)
            for place in np.flatnonzero(shard == k):  # row by row: fancy assignment would copy every row twice
                target[place] = source[row[place]]
        return out

    def captions(self, indices: Tensor | Sequence[int]) -> list[str]:
        """The captions, decoded from the mapped bytes."""
        group, found = self.group(ENCODINGS), []
        for index in np.asarray(indices, dtype=np.int64).tolist():
            k, row = divmod(index, self.shard_size)
            arrays = group.arrays(k)
            if CAPTION_ENDS not in arrays:
                where = str(group.shard_path(k))
                raise DataError("this store was written without captions", where=where, cure=rebuild())
            ends = arrays[CAPTION_ENDS].array
            begin = int(ends[row - 1]) if row else 0
            found.append(arrays[CAPTION_BYTES].array[begin : int(ends[row])].tobytes().decode())
        return found

    def verify(self) -> list[str]:
        """Hash every shard again; one line for each that is missing, torn or altered."""
        faults = [(name, self.group(name).fault(k)) for name in self.groups() for k in range(self.shards)]
        return [f"{name}/{fault}" for name, fault in faults if fault]

    def group(self, group: str) -> CacheGroup:
        """The shards of a group; DataError if the store has none of that name."""
        if group not in self._groups:
            if not (self.root / group / "group.json").exists():
                cure = f"extract it first: {extraction()}"
                raise DataError(f"the store has no group {group!r}", where=str(self.root), cure=cure)
            self._groups[group] = CacheGroup(self.root / group, self.keys, self._verify_on_read)
        return self._groups[group]

    def _sweep(self, folder: Path) -> None:
        """Remove what a writer that was killed has left, and shards of an earlier, longer store."""
        for leftover in (*self.root.glob(".*.part"), *folder.glob(".*.part")):
            leftover.unlink()
        for shard, k in shard_files(folder).items():
            if k >= self.shards:
                shard.unlink()

    def _resolve(self, key: str) -> tuple[CacheGroup, str]:
        head, _, rest = key.partition(".")
        if rest and head != "text" and (head in self._groups or (self.root / head / "group.json").exists()):
            return self.group(head), rest
        return self.group(ENCODINGS), key
