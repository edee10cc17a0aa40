"""Archives of torch.save, checked by their zip directory before torch opens them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import TinyFluxError, UntrustedFile

MAX_ENTRIES = 10**6  # containers and tensors


def read_archive(
    path: Path,
    corrupt: type[TinyFluxError],
    cure: str,
    origin: str,
    mapped: bool = False,
) -> Any:
    """Read tensors and plain types, of at most as many bytes as the file has.

    Raises UntrustedFile, with the cure `origin`, for a file that needs more than that, and
    `corrupt`, with the cure `cure`, for one that is truncated. `mapped`: tensors lie in the file,
    mapped into memory, and not in memory of their own.
    """
    where, name = str(path), path.name
    _require_stored(path, corrupt, cure, origin)
    try:
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a hostile file can make torch raise nearly any type
        if type(error).__name__ == "UnpicklingError":
            raise UntrustedFile(
                f"{name} asks for more than tensors and plain types; nothing was run",
                where=where,
                cure=origin,
            ) from error
        raise corrupt(f"{name} cannot be read: {error}", where=where, cure=cure) from error
    size = path.stat().st_size
    claimed = sum(tensor.nbytes for tensor in _tensors(content, where, origin, set()))
    if claimed > size:
        raise UntrustedFile(
            f"{name} has {size:,} bytes and holds tensors of {claimed:,}", where=where, cure=origin
        )
    return content


def _require_stored(path: Path, corrupt: type[TinyFluxError], cure: str, origin: str) -> None:
    """Require an uncompressed archive, as torch writes it: a compressed one may expand."""
    where, name = str(path), path.name
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise corrupt(
            f"{name} is missing, truncated, or no archive of torch ({error})",
            where=where,
            cure=cure,
        ) from error
    expanded = sum(entry.file_size for entry in entries)
    size = path.stat().st_size
    compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    duplicated = len({entry.filename for entry in entries}) != len(entries)
    if compressed or expanded > size or duplicated:
        raise UntrustedFile(
            f"{name} has {size:,} bytes and unfolds to {expanded:,}; it was not opened",
            where=where,
            cure=origin,
        )


def _tensors(value: Any, where: str, origin: str, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor once; a container referenced several times is visited once."""
    if id(value) in seen:
        return
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            what = f"a tensor of layout {str(value.layout).removeprefix('torch.')}"
            raise UntrustedFile(
                f"{what}, whose size is not that of its bytes", where=where, cure=origin
            )
        seen.add(id(value))
        yield value
    elif isinstance(value, Mapping | list | tuple | set):
        seen.add(id(value))
        if len(seen) > MAX_ENTRIES:
            raise UntrustedFile(f"more than {MAX_ENTRIES:,} entries", where=where, cure=origin)
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item, where, origin, seen)
