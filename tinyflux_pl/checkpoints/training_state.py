"""`state.pt` of a checkpoint: optimizer and counters. Judged by its table of contents before torch opens it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.checkpoints.manifest import CURE
from tinyflux_pl.core.errors import CorruptCheckpoint, UntrustedFile

MOST_ENTRIES = 10**6
RESUME_OWN = "resume your own runs only"


def read(path: Path) -> dict[str, Any]:
    """Tensors and plain types only, no more bytes of them than the file has.

    Raises UntrustedFile for a file that asks for more than that, CorruptCheckpoint for one that is torn or no
    training state.
    """
    where, name = str(path), path.name
    _require_stored(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can bring torch to nearly any of them
        if type(error).__name__ == "UnpicklingError":
            what = f"{name} asks for more than tensors and plain types; nothing was run"
            raise UntrustedFile(what, where=where, cure=RESUME_OWN) from error
        raise CorruptCheckpoint(f"{name} cannot be read: {error}", where=where, cure=CURE) from error
    counts = ("step", "average_updates")
    if not isinstance(state, dict) or not {"step", "optimizer"} <= state.keys():
        raise CorruptCheckpoint(f"{name} is not a training state", where=where, cure=CURE)
    if any(type(state.get(key, 0)) is not int or state.get(key, 0) < 0 for key in counts):
        raise CorruptCheckpoint(f"{name} holds no number of steps", where=where, cure=CURE)
    if not isinstance(state["optimizer"], dict) or not isinstance(state.get("callbacks", {}), dict):
        raise CorruptCheckpoint(f"{name} is not a training state", where=where, cure=CURE)
    size, claimed = path.stat().st_size, sum(tensor.nbytes for tensor in _tensors(state, where, set()))
    if claimed > size:
        what = f"{name} has {size:,} bytes and holds tensors of {claimed:,}"
        raise UntrustedFile(what, where=where, cure=RESUME_OWN)
    return state


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise CorruptCheckpoint naming the first weight that holds a number which is none."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise CorruptCheckpoint(f"{name} is not finite", where=where, cure=CURE)


def _require_stored(path: Path) -> None:
    """torch stores what it packs as it is: an archive that unfolds to more than it is was made by somebody else."""
    where, name = str(path), path.name
    try:
        with zipfile.ZipFile(path) as archive:
            held = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        what = f"{name} is missing, torn, or no archive of torch ({error})"
        raise CorruptCheckpoint(what, where=where, cure=CURE) from error
    unfolded, size = sum(entry.file_size for entry in held), path.stat().st_size
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in held)
    if packed or unfolded > size or len({entry.filename for entry in held}) != len(held):
        what = f"{name} has {size:,} bytes and unfolds to {unfolded:,}; it was not opened"
        raise UntrustedFile(what, where=where, cure=RESUME_OWN)


def _tensors(value: Any, where: str, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor, once; a container that is reached by many ways is walked once."""
    if id(value) in seen:
        return
    if isinstance(value, Tensor):
        seen.add(id(value))
        yield value
    elif isinstance(value, Mapping | list | tuple | set):
        seen.add(id(value))
        if len(seen) > MOST_ENTRIES:
            raise UntrustedFile(f"more than {MOST_ENTRIES:,} entries", where=where, cure=RESUME_OWN)
        for held in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(held, where, seen)
