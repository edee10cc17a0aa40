"""One group of a cache store: a folder of hashed safetensors shards, read through memory maps."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.cache.mapped_tensors import DTYPE_NAMES, DTYPES, MappedArray, map_tensors
from tinyflux_pl.cache.sample_keys import ShardKeys
from tinyflux_pl.cache.sealed_json import GROUP_FILE, read_sealed
from tinyflux_pl.cache.staleness import rebuild_hint, repair_hint
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptStore, DataError, SpecMismatch
from tinyflux_pl.core.fingerprint import hash_json

CAPTION_BYTES = "captions.bytes"
CAPTION_ENDS = "captions.ends"
VARIANT_SEPARATOR = "\0"  # between the captions of one row; no caption holds it
GROUP_FIELDS = {"fingerprint": dict}
SHARD_FIELDS = {"size": int, "sha256": str, "layout": dict}
_SHARD_NAME = re.compile(r"shard_(\d{5,})\.(safetensors|json)")


def shard_files(folder: Path) -> dict[Path, int]:
    """Files named as a shard or the record of one -> the shard's number."""
    matches = ((path, _SHARD_NAME.fullmatch(path.name)) for path in sorted(folder.glob("shard_*")))
    return {path: int(match[1]) for path, match in matches if match}


class CacheGroup:
    """One group of a store: shards with a sealed JSON record each.

    Files are `shard_00000.safetensors` and `shard_00000.json` (size, sha256, layout, inputs). The
    record is written after the shard, and a shard without one does not count: kill -9 at any
    instant leaves either a complete shard or one that is still pending. `inputs` hashes the group's
    fingerprint and the keys of the shard's samples: a shard made from other inputs does not count.
    Without `keys` (the store's manifest is lost) only `fault` works.
    """

    def __init__(self, folder: Path, keys: ShardKeys | None, verify_on_read: bool = True) -> None:
        self.folder = folder
        self.keys = keys
        self.verify_on_read = verify_on_read
        self._cure = repair_hint(folder.parent)
        self._maps: dict[int, dict[str, MappedArray]] = {}
        self._layouts: dict[int, dict[str, tuple[torch.dtype, tuple[int, ...]]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a worker process maps the files itself

    def shard_path(self, k: int) -> Path:
        """The file of shard k; its record has the suffix .json."""
        return self.folder / f"shard_{k:05d}.safetensors"

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """The fingerprint of the group's inputs."""
        return read_sealed(self.folder / GROUP_FILE, self.folder.parent, GROUP_FIELDS)[
            "fingerprint"
        ]

    def record(self, k: int) -> dict[str, Any] | None:
        """The record of shard k.

        None if the shard is missing, of another size or made from other inputs.
        """
        shard = self.shard_path(k)
        file = shard.with_suffix(".json")
        if not shard.exists() or not file.exists():
            return None
        record = read_sealed(file, self.folder.parent, SHARD_FIELDS)
        is_valid = shard.stat().st_size == record["size"] and record.get("inputs") == self._inputs(
            k
        )
        return record if is_valid else None

    def write(self, k: int, tensors: Mapping[str, Tensor], captions: list[str] | None) -> None:
        """Write shard k, then its record.

        All tensors are (rows, ...), finite, laid out as in other shards.
        """
        shard = self.shard_path(k)
        rows = len(self.keys.rows(k))
        layout: dict[str, Any] = {}
        for name, tensor in tensors.items():
            if tensor.ndim == 0 or tensor.shape[0] != rows:
                what = f"{name}: shape {tuple(tensor.shape)}, but shard {k} has {rows} rows"
                raise DataError(what, where=str(shard))
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
                raise DataError(f"{name}: not finite, so it is not stored", where=str(shard))
            layout[name] = [DTYPE_NAMES[tensor.dtype], list(tensor.shape[1:])]
        self._require_same_layout(layout, k)
        stored = dict(tensors)
        if captions is not None:
            if len(captions) != rows:
                raise DataError(f"{len(captions)} captions for {rows} rows", where=str(shard))
            stored |= _encode_captions(captions)
        shard.with_suffix(".json").unlink(missing_ok=True)  # a shard being replaced does not count
        self._maps.pop(k, None)
        files.write_tensors(shard, stored)
        record = {
            "sha256": files.sha256(shard),
            "size": shard.stat().st_size,
            "rows": rows,
            "layout": layout,
            "inputs": self._inputs(k),
        }
        files.write_sealed(shard.with_suffix(".json"), record)

    def layout(self, k: int = 0) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Name -> (dtype, shape of a row) of k's segment; empty if none is recorded."""
        segment = self._segment(k)
        if segment not in self._layouts:
            numbers = sorted(set(shard_files(self.folder).values()))
            for number in numbers:
                path = self.shard_path(number).with_suffix(".json")
                if self._segment(number) != segment or not path.exists():
                    continue
                stored = read_sealed(path, self.folder.parent, SHARD_FIELDS)["layout"]
                self._layouts[segment] = {
                    name: (DTYPES[dtype][1], tuple(shape))
                    for name, (dtype, shape) in stored.items()
                }
                break
        return dict(self._layouts.get(segment, {}))

    def arrays(self, k: int) -> dict[str, MappedArray]:
        """Shard k's tensors as memory maps.

        Its size, sha256 and header are checked on the first call.
        """
        if k not in self._maps:
            self._maps[k] = self._open(k, self.verify_on_read)
        return self._maps[k]

    def caption(self, k: int, row: int) -> str:
        """The caption of a row of shard k; DataError if the store has none."""
        arrays = self.arrays(k)
        if CAPTION_ENDS not in arrays:
            what = "this store was written without captions"
            raise DataError(what, where=str(self.shard_path(k)), cure=rebuild_hint())
        ends = arrays[CAPTION_ENDS].array
        begin = int(ends[row - 1]) if row else 0
        return arrays[CAPTION_BYTES].array[begin : int(ends[row])].tobytes().decode()

    def fault(self, k: int, check_inputs: bool = True) -> str:
        """The damage of shard k, whose file is hashed again; "" if there is none."""
        try:
            self._open(k, True, check_inputs)
        except CorruptStore as error:
            return error.what
        return ""

    def _inputs(self, k: int) -> str:
        return hash_json({"fingerprint": self.fingerprint, "keys": self.keys.of(k)})

    def _segment(self, k: int) -> int:
        return 0 if self.keys is None else self.keys.rows_of.segment_of(k)

    def _require_same_layout(self, layout: dict[str, Any], k: int) -> None:
        shard = self.shard_path(k)
        stored = {
            n: [DTYPE_NAMES[dtype], list(shape)] for n, (dtype, shape) in self.layout(k).items()
        }
        if stored and stored != layout:
            names = sorted(
                n for n in stored.keys() | layout.keys() if stored.get(n) != layout.get(n)
            )
            lines = "; ".join(f"{n}: {layout.get(n)}, other shards {stored.get(n)}" for n in names)
            what = f"the layout of the shard differs: {lines}"
            raise SpecMismatch(what, where=str(shard), cure=rebuild_hint())

    def _open(self, k: int, verify: bool, check_inputs: bool = True) -> dict[str, MappedArray]:
        shard = self.shard_path(k)
        record_path = shard.with_suffix(".json")
        if not record_path.exists() or not shard.exists():
            raise self._corrupt(shard, "it is missing, or was not finished")
        record = read_sealed(record_path, self.folder.parent, SHARD_FIELDS)
        size = shard.stat().st_size
        if check_inputs and record.get("inputs") != self._inputs(k):
            raise self._corrupt(
                shard, "it was made from other inputs than its group and its samples"
            )
        if size != record["size"]:
            raise self._corrupt(shard, f"{size} bytes, {record['size']} were written")
        mapped = np.memmap(shard, np.uint8, "r")
        # the mapping itself is hashed: the bytes that were checked are those that will be read
        if verify and hashlib.sha256(mapped).hexdigest() != record["sha256"]:
            raise self._corrupt(shard, "its sha256 is not that of what was written")
        try:
            return map_tensors(mapped)
        except (ValueError, KeyError, TypeError) as error:
            raise self._corrupt(shard, f"its header is damaged ({error})") from error

    def _corrupt(self, shard: Path, what: str) -> CorruptStore:
        return CorruptStore(f"{shard.name}: {what}", where=str(shard), cure=self._cure)


def _encode_captions(captions: list[str]) -> dict[str, Tensor]:
    """All captions as one column of bytes, and the end of each in it."""
    encoded = [caption.encode() for caption in captions]
    content = np.frombuffer(b"".join(encoded) + b"\n", np.uint8).copy()
    return {
        CAPTION_BYTES: torch.from_numpy(content),
        CAPTION_ENDS: torch.tensor([len(each) for each in encoded]).cumsum(0),
    }
