"""Tensors of a safetensors file as read-only views of its memory map."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# safetensors' name -> numpy type of the same width (numpy has no bfloat16), and the torch dtype
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
DTYPE_NAMES = {dtype: name for name, (_, dtype) in DTYPES.items()}
HEADER_LENGTH_BYTES = 8


@dataclass(frozen=True)
class MappedArray:
    """A tensor as a numpy view of the file, and its torch dtype."""

    array: np.ndarray
    dtype: torch.dtype

    def head(self, first: int | None) -> np.ndarray:
        """All rows, cut to the `first` entries of their first axis."""
        return self.array if first is None else self.array[:, :first]

    def empty(self, rows: int, first: int | None) -> tuple[Tensor, np.ndarray]:
        """An uninitialised tensor of so many rows, and a numpy view of its memory."""
        out = torch.empty((rows, *self.head(first).shape[1:]), dtype=self.dtype)
        same_width = {"int16": torch.int16, "uint8": torch.uint8}.get(
            self.array.dtype.name, self.dtype
        )
        return out, out.view(same_width).numpy()


def map_tensors(mapped: np.ndarray) -> dict[str, MappedArray]:
    """Name -> view, of a mapped file: 8 bytes of header length, JSON header, data.

    Raises ValueError, KeyError or TypeError for a damaged header.
    """
    start = HEADER_LENGTH_BYTES + int.from_bytes(mapped[:HEADER_LENGTH_BYTES].tobytes(), "little")
    if start > len(mapped):
        raise ValueError("longer than the file")
    header = json.loads(mapped[HEADER_LENGTH_BYTES:start].tobytes())
    header.pop("__metadata__", None)
    return {name: _view(mapped, start, name, entry) for name, entry in header.items()}


def _view(mapped: np.ndarray, start: int, name: str, entry: dict[str, Any]) -> MappedArray:
    stored, dtype = DTYPES[entry["dtype"]]
    begin, end = (start + int(offset) for offset in entry["data_offsets"])
    nbytes = math.prod(entry["shape"]) * np.dtype(stored).itemsize
    if not start <= begin <= end <= len(mapped) or end - begin != nbytes:
        raise ValueError(f"{name} does not fit its place")
    view = np.asarray(mapped)[begin:end].view(stored).reshape(entry["shape"])
    return MappedArray(view, dtype)
