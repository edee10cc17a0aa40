"""One group of a cache store: a folder of hashed safetensors shards, read through memory maps."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.cache.sample_keys import ShardKeys
from tinyflux_pl.cache.staleness import mend, rebuild
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptStore, DataError, SpecMismatch
from tinyflux_pl.core.fingerprint import of

CAPTION_BYTES, CAPTION_ENDS = "captions.bytes", "captions.ends"

# safetensors' name -> numpy type of the same width (numpy has no bfloat16), and the torch type to view it as
DTYPES: dict[str, tuple[Any, torch.dtype]] = {
    "F64": (np.float64, torch.float64),
    "F32": (np.float32, torch.float32),
    "F16": (np.float16, torch.float16),
    "BF16": (np.int16, torch.bfloat16),
    "F8_E4M3": (np.uint8, torch.float8_e4m3fn),
    "F8_E5M2": (np.uint8, torch.float8_e5m2),
    "I64": (np.int64, torch.int64),
    "I32": (np.int32, torch.int32),
    "I16": (np.int16, torch.int16),
    "I8": (np.int8, torch.int8),
    "U8": (np.uint8, torch.uint8),
    "BOOL": (np.bool_, torch.bool),
}
DESCRIBED, RECORDED = {"fingerprint": dict}, {"size": int, "sha256": str, "layout": dict}
OWN_KEYS = {  # of each description
    "manifest.json": {"schema", "name", "total", "shard_size", "records", "keys", "seal"},
    "group.json": {"group", "fingerprint", "seal"},
    "audit.json": {"of", "seal"},
    "shard": {"size", "sha256", "layout", "inputs", "seal"},
}
FOREIGN, MOVE = "is another program's", "move that file elsewhere: it is never removed"
_SHARD = re.compile(r"shard_(\d{5,})\.(safetensors|json)")
NAMES = {dtype: name for name, (_, dtype) in DTYPES.items()}


@dataclass(frozen=True)
class MappedArray:
    """A tensor of a shard as a read-only numpy view of the file, and the torch type it really has."""

    array: np.ndarray
    dtype: torch.dtype

    def head(self, first: int | None) -> np.ndarray:
        """All rows, of each only the first entries of its first axis."""
        return self.array if first is None else self.array[:, :first]

    def empty(self, rows: int, first: int | None) -> tuple[Tensor, np.ndarray]:
        """Room for so many rows: a tensor, and the same memory as numpy sees it."""
        out = torch.empty((rows, *self.head(first).shape[1:]), dtype=self.dtype)
        same_width = {"int16": torch.int16, "uint8": torch.uint8}.get(self.array.dtype.name, self.dtype)
        return out, out.view(same_width).numpy()


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` by JSON together with its own hash, atomically."""
    files.write_bytes(path, files.sealed(value))


def is_foreign(path: Path) -> bool:
    """Whether a file under a name of a store is the whole JSON of another program. An empty one is nobody's.

    A damaged one of ours still has most of its keys.
    """
    try:
        content = files.read_json(path)
    except (OSError, ValueError):
        return False
    own = OWN_KEYS.get(path.name, OWN_KEYS["shard"])
    held = content.keys() if isinstance(content, dict) else set()
    return isinstance(content, dict | list) and len(content) > 0 and 2 * len(held & own) < len(own)


def read_sealed(path: Path, root: Path, holds: Mapping[str, type] = MappingProxyType({})) -> dict[str, Any]:
    """Sealed JSON of the store at `root`; CorruptStore if a single bit of it changed, or it lacks what it `holds`."""
    try:
        found = files.read_sealed(path)
    except (OSError, ValueError) as error:
        if is_foreign(path):
            raise CorruptStore(
                f"{path.name} {FOREIGN}", where=str(path), cure=f"{MOVE}; then run this again"
            ) from error
        raise CorruptStore(f"{path.name} is not what was written", where=str(path), cure=mend(root)) from error
    if odd := [key for key, kind in holds.items() if type(found.get(key)) is not kind]:
        raise CorruptStore(f"{path.name} holds no {' and no '.join(odd)}", where=str(path), cure=mend(root))
    return found


def shard_files(folder: Path) -> dict[Path, int]:
    """The files of a folder that are a shard or its record by their names, and the number that they name."""
    named = ((path, _SHARD.fullmatch(path.name)) for path in sorted(folder.glob("shard_*")))
    return {path: int(match[1]) for path, match in named if match}


class CacheGroup:
    """Shards `shard_00000.safetensors` with a sealed `shard_00000.json` each: size, sha256, layout, inputs.

    The record is written after the shard, so a shard without one does not count: kill -9 at any
    instant leaves either a counted whole shard or one that is still pending. `inputs` hashes the group's
    fingerprint and the keys of the shard's samples: a shard that was made from others does not count.
    Without `keys` (the store's manifest is lost) a group can only be judged by `fault`.
    """

    def __init__(self, folder: Path, keys: ShardKeys | None, verify_on_read: bool = True) -> None:
        self.folder, self.keys, self.verify_on_read = folder, keys, verify_on_read
        self._cure = mend(folder.parent)
        self._maps: dict[int, dict[str, MappedArray]] = {}
        self._layout: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a worker process maps the files itself

    def shard_path(self, k: int) -> Path:
        return self.folder / f"shard_{k:05d}.safetensors"

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What the group was made from."""
        return read_sealed(self.folder / "group.json", self.folder.parent, DESCRIBED)["fingerprint"]

    def record(self, k: int) -> dict[str, Any] | None:
        """What was recorded of shard k; None while it is not there as recorded, made from what it should be."""
        shard = self.shard_path(k)
        if not shard.exists() or not shard.with_suffix(".json").exists():
            return None
        record = read_sealed(shard.with_suffix(".json"), self.folder.parent, RECORDED)
        return record if shard.stat().st_size == record["size"] and record.get("inputs") == self._inputs(k) else None

    def write(self, k: int, tensors: Mapping[str, Tensor], captions: list[str] | None) -> None:
        """Write shard k, then its record. All tensors are (rows, ...), finite, laid out as in other shards."""
        shard, rows = self.shard_path(k), len(self.keys.rows(k))
        layout: dict[str, Any] = {}
        for name, tensor in tensors.items():
            if tensor.ndim == 0 or tensor.shape[0] != rows:
                raise DataError(f"{name}: shape {tuple(tensor.shape)}, but shard {k} has {rows} rows", where=str(shard))
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
                raise DataError(f"{name}: not finite, so it is not stored", where=str(shard))
            layout[name] = [NAMES[tensor.dtype], list(tensor.shape[1:])]
        self._same_layout(layout, shard)
        stored = dict(tensors)
        if captions is not None:
            if len(captions) != rows:
                raise DataError(f"{len(captions)} captions for {rows} rows", where=str(shard))
            encoded = [caption.encode() for caption in captions]
            stored[CAPTION_BYTES] = torch.from_numpy(np.frombuffer(b"".join(encoded) + b"\n", np.uint8).copy())
            stored[CAPTION_ENDS] = torch.tensor([len(e) for e in encoded]).cumsum(0)
        shard.with_suffix(".json").unlink(missing_ok=True)  # a shard being replaced does not count
        self._maps.pop(k, None)
        files.write_tensors(shard, stored)
        record = {"sha256": files.sha256(shard), "size": shard.stat().st_size, "rows": rows, "layout": layout}
        write_sealed(shard.with_suffix(".json"), {**record, "inputs": self._inputs(k)})

    def layout(self) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Type and row shape of each tensor, from any recorded shard; empty when there is none."""
        if not self._layout and (path := next(self.folder.glob("shard_*.json"), None)):
            stored = read_sealed(path, self.folder.parent, RECORDED)["layout"]
            self._layout = {name: (DTYPES[dtype][1], tuple(shape)) for name, (dtype, shape) in stored.items()}
        return dict(self._layout)

    def arrays(self, k: int) -> dict[str, MappedArray]:
        """Shard k's tensors as memory maps; its size, sha256 and header are checked on the first call."""
        if k not in self._maps:
            self._maps[k] = self._open(k, self.verify_on_read)
        return self._maps[k]

    def fault(self, k: int, judge_inputs: bool = True) -> str:
        """What is wrong with shard k, hashed anew from the file; empty if nothing."""
        try:
            self._open(k, True, judge_inputs)
        except CorruptStore as error:
            return error.what
        return ""

    def _inputs(self, k: int) -> str:
        return of({"fingerprint": self.fingerprint, "keys": self.keys.of(k)})

    def _same_layout(self, layout: dict[str, Any], shard: Path) -> None:
        known = {name: [NAMES[dtype], list(shape)] for name, (dtype, shape) in self.layout().items()}
        if known and known != layout:
            names = sorted(n for n in known.keys() | layout.keys() if known.get(n) != layout.get(n))
            lines = "; ".join(f"{n}: {layout.get(n)}, other shards {known.get(n)}" for n in names)
            raise SpecMismatch(f"the shard is laid out otherwise: {lines}", where=str(shard), cure=rebuild())

    def _open(self, k: int, verify: bool, judge_inputs: bool = True) -> dict[str, MappedArray]:
        shard = self.shard_path(k)
        record_path = shard.with_suffix(".json")
        if not record_path.exists() or not shard.exists():
            raise self._corrupt(shard, "it is not there, or was not finished")
        record, size = read_sealed(record_path, self.folder.parent, RECORDED), shard.stat().st_size
        if judge_inputs and record.get("inputs") != self._inputs(k):
            raise self._corrupt(shard, "it was made from other inputs than its group and its samples")
        if size != record["size"]:
            raise self._corrupt(shard, f"{size} bytes, {record['size']} were written")
        mapped = np.memmap(shard, np.uint8, "r")
        # the mapping itself is hashed: what was checked is what will be read
        if verify and hashlib.sha256(mapped).hexdigest() != record["sha256"]:
            raise self._corrupt(shard, "its sha256 is not that of what was written")
        try:
            return _views(mapped)
        except (ValueError, KeyError, TypeError) as error:
            raise self._corrupt(shard, f"its header is damaged ({error})") from error

    def _corrupt(self, shard: Path, what: str) -> CorruptStore:
        return CorruptStore(f"{shard.name}: {what}", where=str(shard), cure=self._cure)


def _views(mapped: np.ndarray) -> dict[str, MappedArray]:
    """The tensors of a mapped safetensors file: 8 bytes of header length, JSON header, data."""
    start = 8 + int.from_bytes(mapped[:8].tobytes(), "little")
    if start > len(mapped):
        raise ValueError("longer than the file")
    header = json.loads(mapped[8:start].tobytes())
    header.pop("__metadata__", None)
    views = {}
    for name, entry in header.items():
        stored, dtype = DTYPES[entry["dtype"]]
        begin, end = (start + int(offset) for offset in entry["data_offsets"])
        if (
            not start <= begin <= end <= len(mapped)
            or end - begin != math.prod(entry["shape"]) * np.dtype(stored).itemsize
        ):
            raise ValueError(f"{name} does not fit its place")
        view = np.asarray(mapped)[begin:end].view(stored).reshape(entry["shape"])
        views[name] = MappedArray(view, dtype)
    return views
