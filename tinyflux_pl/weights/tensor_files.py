"""Weights of a file in the format given by its first bytes: safetensors or GGUF."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tinyflux_pl.core import files
from tinyflux_pl.weights import gguf_file, headers, zero_runs


def require_weights(path: str | Path) -> None:
    """Raise for another format, as core.files.require_tensor_file, and for a truncated header."""
    if gguf_file.is_gguf(path):
        gguf_file.outlines(path)
    else:
        files.require_tensor_file(path)


def shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Key -> shape of every tensor, by the header; raises as `outlines` does."""
    if gguf_file.is_gguf(path):
        return {key: tuple(value.shape) for key, value in gguf_file.outlines(path).items()}
    return headers.tensor_shapes(path)


def outlines(
    path: str | Path, dtype: torch.dtype = torch.float32, *, packed: bool = False
) -> dict[str, Tensor]:
    """Every tensor on the meta device; raises what weights.headers, gguf_file and zero_runs do.

    With `packed`, rows of GGUF's blocks are PackedRows of `dtype`.
    """
    zero_runs.require_no_gap(path)
    if packed and gguf_file.is_gguf(path):
        return dict(gguf_file.packed_tensors(path, dtype, meta=True))
    if gguf_file.is_gguf(path):
        return gguf_file.outlines(path)
    return headers.packed_formats(path) | headers.outlines(path)


def tensors(
    path: str | Path, dtype: torch.dtype = torch.float32, *, packed: bool = False
) -> dict[str, Tensor]:
    """Every tensor as it is stored; those that GGUF packs in `dtype`, or `packed` as PackedRows.

    Raises what `outlines` does.
    """
    zero_runs.require_no_gap(path)
    if packed and gguf_file.is_gguf(path):
        return dict(gguf_file.packed_tensors(path, dtype))
    if gguf_file.is_gguf(path):
        return gguf_file.tensors(path, dtype)
    return headers.packed_formats(path) | files.read_tensors(path)
