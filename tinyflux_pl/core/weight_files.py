"""What a file of weights is, without loading it: its hash, taken once a process, and its tensors' shapes."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from tinyflux_pl.core.errors import CorruptCheckpoint
from tinyflux_pl.core.files import require_tensor_file, sha256


def known_sha256(path: str | Path) -> str:
    """sha256 (hex) of a file, remembered in this process while its place, size and times stay what they are."""
    status = os.stat(path)
    return _sha256(str(Path(path).absolute()), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: str, *_: int) -> str:
    return sha256(path)


def tensor_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a safetensors file, from its header.

    Raises UntrustedFile for a pickle under that name, CorruptCheckpoint for a torn file.
    """
    from safetensors import SafetensorError, safe_open

    require_tensor_file(path)
    try:
        with safe_open(path, "pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        what = f"not a whole safetensors file: {error}"
        raise CorruptCheckpoint(what, where=str(path), cure="fetch it again") from error
