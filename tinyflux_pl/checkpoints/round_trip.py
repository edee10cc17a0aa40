"""Bitwise comparison of a checkpoint with the tensors that it was written from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.checkpoints.directory import Checkpoint, plain_keys
from tinyflux_pl.core.errors import CorruptCheckpoint


def require_same(
    read: Checkpoint,
    weights: Mapping[str, Tensor],
    averaged: Mapping[str, Tensor] | None,
    optimizer: dict[str, Any],
) -> None:
    """Raise CorruptCheckpoint naming the first part of `read` that differs from the arguments."""
    pairs: list[tuple[str, Any, Any]] = [
        ("weights", plain_keys(weights), read.weights("raw")),
        ("optimizer", optimizer, read.state()["optimizer"]),
    ]
    if averaged is not None:
        pairs.append(("averages", plain_keys(averaged), read.weights("averaged")))
    for name, saved, loaded in pairs:
        if part := difference(saved, loaded, name):
            raise CorruptCheckpoint(
                f"{part} differs from what was written when it is read back",
                where=str(read.path.parent),
                cure="check the disk and its file system, or write elsewhere: "
                "paths.root=/another/disk",
            )


def difference(saved: Any, loaded: Any, name: str) -> str:
    """Dotted name of the first difference of two nested containers, or "" if they are equal."""
    if isinstance(saved, Tensor):
        if not isinstance(loaded, Tensor):
            return name
        same_kind = saved.dtype == loaded.dtype and saved.shape == loaded.shape
        return "" if same_kind and torch.equal(_as_bytes(saved), _as_bytes(loaded)) else name
    if isinstance(saved, Mapping):
        if not isinstance(loaded, Mapping) or saved.keys() != loaded.keys():
            return name
        parts = (difference(saved[key], loaded[key], f"{name}.{key}") for key in saved)
        return next(filter(None, parts), "")
    if isinstance(saved, list | tuple):
        if not isinstance(loaded, list | tuple) or len(saved) != len(loaded):
            return name
        pairs = enumerate(zip(saved, loaded, strict=True))
        parts = (difference(*pair, f"{name}.{index}") for index, pair in pairs)
        return next(filter(None, parts), "")
    return "" if saved == loaded else name


def _as_bytes(tensor: Tensor) -> Tensor:
    """The tensor's bytes, so that NaN equals NaN."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
