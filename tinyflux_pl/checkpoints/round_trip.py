"""Whether a checkpoint holds, bit by bit, what it was written from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.checkpoints.directory import Checkpoint, plain_keys
from tinyflux_pl.core.errors import CorruptCheckpoint


def require_same(
    read: Checkpoint, weights: Mapping[str, Tensor], averaged: Mapping[str, Tensor] | None, optimizer: dict[str, Any]
) -> None:
    """Raise CorruptCheckpoint naming the first part of `read` that is not what is given here."""
    pairs: list[tuple[str, Any, Any]] = [
        ("weights", plain_keys(weights), read.weights("raw")),
        ("optimizer", optimizer, read.state()["optimizer"]),
    ]
    if averaged is not None:
        pairs.append(("averages", plain_keys(averaged), read.weights("averaged")))
    for name, saved, found in pairs:
        if part := difference(saved, found, name):
            raise CorruptCheckpoint(
                f"{part} came back from the disk other than it was written",
                where=str(read.path.parent),
                cure="check the disk and its file system, or write elsewhere: paths.root=/another/disk",
            )


def difference(saved: Any, found: Any, name: str) -> str:
    """The name of the first part in which two nested containers of tensors and plain values differ, or nothing."""
    if isinstance(saved, Tensor):
        same = isinstance(found, Tensor) and saved.dtype == found.dtype and saved.shape == found.shape
        return "" if same and torch.equal(_bits(saved), _bits(found)) else name
    if isinstance(saved, Mapping):
        if not isinstance(found, Mapping) or saved.keys() != found.keys():
            return name
        return next(filter(None, (difference(saved[k], found[k], f"{name}.{k}") for k in saved)), "")
    if isinstance(saved, list | tuple):
        if not isinstance(found, list | tuple) or len(saved) != len(found):
            return name
        parts = enumerate(zip(saved, found, strict=True))
        return next(filter(None, (difference(*pair, f"{name}.{i}") for i, pair in parts)), "")
    return "" if saved == found else name


def _bits(tensor: Tensor) -> Tensor:
    """Its bytes: numbers that are not finite must come back too."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
