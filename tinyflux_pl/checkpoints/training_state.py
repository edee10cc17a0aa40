"""`state.pt` of a checkpoint, checked by its zip directory before torch opens it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.checkpoints.manifest import CURE
from tinyflux_pl.core.errors import CorruptCheckpoint, UntrustedFile

MAX_ENTRIES = 10**6
RESUME_CURE = "resume your own runs only"


def read(path: Path) -> dict[str, Any]:
    """Read tensors and plain types, of at most as many bytes as the file has.

    Raises UntrustedFile for a file that needs more than that, CorruptCheckpoint for one that is
    truncated or not a training state.
    """
    where, name = str(path), path.name
    _require_stored(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can make torch raise nearly any type
        if type(error).__name__ == "UnpicklingError":
            raise UntrustedFile(
                f"{name} asks for more than tensors and plain types; nothing was run",
                where=where,
                cure=RESUME_CURE,
            ) from error
        raise CorruptCheckpoint(
            f"{name} cannot be read: {error}", where=where, cure=CURE
        ) from error
    counts = ("step", "average_updates")
    if not isinstance(state, dict) or not {"step", "optimizer"} <= state.keys():
        raise CorruptCheckpoint(f"{name} is not a training state", where=where, cure=CURE)
    if any(type(state.get(key, 0)) is not int or state.get(key, 0) < 0 for key in counts):
        raise CorruptCheckpoint(f"{name} holds no number of steps", where=where, cure=CURE)
    if not isinstance(state["optimizer"], dict) or not isinstance(state.get("callbacks", {}), dict):
        raise CorruptCheckpoint(f"{name} is not a training state", where=where, cure=CURE)
    size = path.stat().st_size
    claimed = sum(tensor.nbytes for tensor in _tensors(state, where, set()))
    if claimed > size:
        raise UntrustedFile(
            f"{name} has {size:,} bytes and holds tensors of {claimed:,}",
            where=where,
            cure=RESUME_CURE,
        )
    return state


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise CorruptCheckpoint naming the first floating-point tensor with a non-finite value."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise CorruptCheckpoint(f"{name} is not finite", where=where, cure=CURE)


def _require_stored(path: Path) -> None:
    """Require an uncompressed archive, as torch writes it: a compressed one may expand."""
    where, name = str(path), path.name
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CorruptCheckpoint(
            f"{name} is missing, torn, or no archive of torch ({error})", where=where, cure=CURE
        ) from error
    expanded = sum(entry.file_size for entry in entries)
    size = path.stat().st_size
    compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    duplicated = len({entry.filename for entry in entries}) != len(entries)
    if compressed or expanded > size or duplicated:
        raise UntrustedFile(
            f"{name} has {size:,} bytes and unfolds to {expanded:,}; it was not opened",
            where=where,
            cure=RESUME_CURE,
        )


def _tensors(value: Any, where: str, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor once; a container referenced several times is visited once."""
    if id(value) in seen:
        return
    if isinstance(value, Tensor):
        seen.add(id(value))
        yield value
    elif isinstance(value, Mapping | list | tuple | set):
        seen.add(id(value))
        if len(seen) > MAX_ENTRIES:
            raise UntrustedFile(f"more than {MAX_ENTRIES:,} entries", where=where, cure=RESUME_CURE)
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item, where, seen)
