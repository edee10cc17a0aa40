"""Files that are either whole or not there: atomic writes, hashes, contained paths."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from tinyflux_pl.core.errors import DiskFull, UntrustedFile


def fsync_directory(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def staged_file(path: str | Path) -> Generator[Path]:
    """Yield a path beside `path`; on success fsync it and rename it into place, else remove it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield staging
        with open(staging, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(staging, path)
        fsync_directory(path.parent)
    except OSError as error:
        raise _explain(error, path) from error
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def staged_directory(path: str | Path) -> Generator[Path]:
    """Yield a folder beside `path`; on success fsync its files and rename it into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    staging.mkdir()
    try:
        yield staging
        for file in staging.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as handle:
                    os.fsync(handle.fileno())
        fsync_directory(staging)
        os.rename(staging, path)
        fsync_directory(path.parent)
    except OSError as error:
        raise _explain(error, path) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replace `path` by `content`, atomically."""
    with staged_file(path) as staging:
        staging.write_bytes(content)


def write_json(path: str | Path, value: Any) -> None:
    """Replace `path` by indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Replace `path` by a safetensors file, atomically, readable by the group."""
    from safetensors.torch import save_file

    with staged_file(path) as staging:
        try:
            save_file({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, staging, dict(metadata or {}))
        except Exception as error:  # safetensors raises its own type for a full disk
            if "No space" in str(error) or "File too large" in str(error):
                raise OSError(errno.ENOSPC, str(error)) from error
            raise
        os.chmod(staging, 0o644)


def sha256(path: str | Path) -> str:
    """sha256 (hex) of a file, read in blocks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def contained_join(root: str | Path, relative: str) -> Path:
    """Join and resolve; raise UntrustedFile if the result leaves `root` (links included)."""
    base = Path(root).resolve()
    cure = "name files by paths relative to the dataset's folder, inside it"
    if not relative or "\0" in relative or "\\" in relative or Path(relative).is_absolute():
        raise UntrustedFile(f"not a path inside the dataset: {relative!r}", where=str(base), cure=cure)
    target = (base / relative).resolve()
    if not target.is_relative_to(base):
        raise UntrustedFile(f"leaves the dataset: {relative!r}", where=str(base), cure=cure)
    return target


def _explain(error: OSError, path: Path) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return error
    free = shutil.disk_usage(path.parent).free
    return DiskFull(
        f"no room to write {path.name}: {free / 2**20:,.0f} MiB free; what was there before is untouched",
        where=str(path.parent),
        cure="free some space, or set another folder with paths.root=/another/disk",
    )
