"""The files of one network's weights: one file, or the shards that an index names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint
from tinyflux_pl.weights import tensor_files
from tinyflux_pl.weights.dequantize import require_values
from tinyflux_pl.weights.key_diff import listed

Value = TypeVar("Value")


@dataclass(frozen=True)
class WeightFiles:
    """Ordered safetensors of one network and their variant (None: unsuffixed weights).

    `shard_of` is what an index says: the name of the file that holds each key. None: there is no
    index. `total_bytes` is what it says of all tensors together; None: nothing.
    """

    files: tuple[Path, ...]
    variant: str | None = None
    shard_of: Mapping[str, str] | None = None
    total_bytes: int | None = None

    def tensors(
        self, dtype: torch.dtype = torch.float32, *, packed: bool = False
    ) -> dict[str, Tensor]:
        """Every tensor, mapped from disk and read when it is used; GGUF's packed ones in `dtype`.

        With `packed` those are PackedRows. CorruptCheckpoint for a truncated file, a shard of zeros
        and a shard without the keys that the index names for it, CheckpointMismatch for a key that
        the index does not name. Warns as `outlines` does.
        """
        read = partial(self._values, dtype=dtype, packed=packed)
        return self._compared(self._tensors_by_shard(read))

    def outlines(
        self, dtype: torch.dtype = torch.float32, *, packed: bool = False
    ) -> dict[str, Tensor]:
        """The same on the meta device, from the headers alone.

        Warns where the tensors do not have the bytes that the index says: those of another
        precision, of another release, or an index that was not made anew with its shards.
        """
        read = partial(tensor_files.outlines, dtype=dtype, packed=packed)
        return self._compared(self._tensors_by_shard(read))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape, from the headers alone."""
        return self._tensors_by_shard(tensor_files.shapes)

    def _compared(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors, with a warning if the index says another number of bytes."""
        num_bytes = sum(value.nbytes for value in tensors.values())
        if self.total_bytes is not None and num_bytes != self.total_bytes:
            warnings.warn(
                f"the index says {self.total_bytes:,} bytes of weights, and its shards hold "
                f"{num_bytes:,}: use index and shards of one release ({self.files[0].parent})",
                stacklevel=3,
            )
        return tensors

    def _values(self, file: Path, dtype: torch.dtype, packed: bool) -> dict[str, Tensor]:
        tensors = tensor_files.tensors(file, dtype, packed=packed)
        if self.shard_of is not None:
            require_values(tensors, str(file))
        return tensors

    def _tensors_by_shard(self, read: Callable[[Path], dict[str, Value]]) -> dict[str, Value]:
        """The files' tensors, each key from the shard that the index names for it."""
        if self.shard_of is None:
            return {key: value for file in self.files for key, value in read(file).items()}
        tensors: dict[str, Value] = {}
        unnamed: dict[str, str] = {}
        for file in self.files:
            for key, value in read(file).items():
                if key not in self.shard_of:
                    unnamed[key] = f" in {file.name}"
                elif self.shard_of[key] == file.name:
                    tensors[key] = value
        where = str(self.files[0].parent)
        if lost := {
            key: f" in {name}" for key, name in self.shard_of.items() if key not in tensors
        }:
            what = (
                f"{len(lost):,} weights are not in the shard that the index names: {listed(lost)}"
            )
            raise CorruptCheckpoint(what, where=where, cure="fetch the index and its shards again")
        if unnamed:
            what = f"{len(unnamed):,} weights that the index does not name: {listed(unnamed)}"
            raise CheckpointMismatch(what, where=where, cure="use index and shards of one release")
        return tensors
