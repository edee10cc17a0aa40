"""Atomic writes, hashes, sealed JSON, bounded reads and contained paths."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from tinyflux_pl.core import fingerprint
from tinyflux_pl.core.disk_full import disk_full_explained
from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint, UntrustedFile

# bytes of a safetensors header, about 100,000 tensors; the format allows six times that
HEADER_LIMIT = 16 * 2**20
# torch's archives, and pickles of all ages
PICKLES = (b"PK", *(bytes([0x80, protocol]) for protocol in range(2, 6)))
JSON_LIMIT = 16 * 2**20  # bytes


def fsync_directory(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def staged_file(path: str | Path, needed: int = 0) -> Generator[Path]:
    """Yield a path beside `path`; on success fsync it and rename it into place, else remove it.

    Raises DiskFull, which says that `needed` bytes were to be written.
    """
    path = Path(path)
    with disk_full_explained(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = staging_path(path)
        try:
            yield staging
            fsync_file(staging)
            os.replace(staging, path)
            fsync_directory(path.parent)
        finally:
            staging.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replace `path` by `content`, atomically."""
    with staged_file(path, len(content)) as staging:
        staging.write_bytes(content)


def write_json(path: str | Path, value: Any) -> None:
    """Replace `path` by indented JSON, atomically."""
    write_bytes(path, indented(value))


def read_json(path: str | Path) -> Any:
    """Parse a JSON file; ValueError if it is invalid, too long or nested too deeply."""
    return _parsed(_bounded(path))


def read_object(path: str | Path) -> dict[str, Any]:
    """Read an untrusted JSON object, such as a config.json; CorruptCheckpoint for anything else."""
    try:
        content = read_json(path)
    except ValueError as error:
        raise CorruptCheckpoint(
            f"not JSON: {error}", where=str(path), cure="fetch it again"
        ) from error
    if not isinstance(content, dict):
        raise CorruptCheckpoint("not a JSON object", where=str(path), cure="fetch it again")
    return content


def indented(value: Any) -> bytes:
    """Indented JSON with sorted keys and without NaN, as all files are written."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def sealed(value: Mapping[str, Any]) -> bytes:
    """A JSON object with its hash, for `read_sealed`."""
    return indented({**value, "seal": fingerprint.hash_json(dict(value))})


def write_sealed(path: str | Path, value: Mapping[str, Any]) -> None:
    """Replace `path` by a JSON object with its hash, atomically."""
    write_bytes(path, sealed(value))


def read_sealed(path: str | Path) -> dict[str, Any]:
    """Read a sealed JSON object; ValueError if a single bit of it changed."""
    content = _bounded(path)
    value = _parsed(content)
    seal = value.pop("seal", None) if isinstance(value, dict) else None
    try:
        # byte by byte: changed whitespace is damage too
        intact = seal is not None and content == sealed(value)
    except RecursionError:
        intact = False
    if not intact:
        raise ValueError("not what was written")
    return value


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file in place, readable by the group: for a folder that is staged."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(
            {k: v.detach().contiguous().cpu() for k, v in tensors.items()},
            path,
            dict(metadata or {}),
        )
    except SafetensorError as error:  # which reports disk errors as text
        if os_error := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(os_error[1]), os.strerror(int(os_error[1])), str(path)) from error
        raise
    os.chmod(path, 0o644)


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Replace `path` by a safetensors file, atomically, readable by the group."""
    with staged_file(path, sum(v.nbytes for v in tensors.values())) as staging:
        save_tensors(staging, tensors, metadata)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, on the CPU.

    Raises UntrustedFile for a pickle under that name, CorruptCheckpoint for a truncated file or a
    header that claims more than the file holds.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    require_tensor_file(path)
    try:
        return load_file(path)
    # torch raises several types
    except (SafetensorError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise _corrupt(path, str(error)) from error


def require_tensor_file(path: str | Path) -> None:
    """Check a safetensors file's first bytes, before a library trusts the header's length.

    Raises UntrustedFile for a pickle, CheckpointMismatch for GGUF, CorruptCheckpoint for any other
    format.
    """
    with open(path, "rb") as handle:
        head, size = handle.read(9), os.fstat(handle.fileno()).st_size
    length = int.from_bytes(head[:8], "little")
    if head[8:] == b"{" and length <= min(HEADER_LIMIT, size - 8):
        return
    if head.startswith(PICKLES):
        name = " under the name of safetensors" if Path(path).suffix == ".safetensors" else ""
        raise UntrustedFile(
            f"a pickle{name}; it was not opened",
            where=str(path),
            cure="get the safetensors file itself, or convert the weights on a machine you can "
            "lose",
        )
    if head.startswith(b"GGUF"):
        cure = "give the same release as safetensors: in bfloat16, float16 or float8"
        raise CheckpointMismatch("a GGUF file, which is not read here", where=str(path), cure=cure)
    raise _corrupt(
        path,
        f"its header claims {length:,} of {size:,} bytes" if len(head) > 8 else f"{size} bytes",
    )


def sha256(path: str | Path) -> str:
    """sha256 (hex) of a file, read in blocks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def contained_join(root: str | Path, relative: str) -> Path:
    """Join and resolve; raise UntrustedFile if the result leaves `root` (links included)."""
    base = Path(root).resolve()
    cure = "name files by paths relative to the dataset's folder, inside it"
    if not relative or "\0" in relative or "\\" in relative or Path(relative).is_absolute():
        raise UntrustedFile(
            f"not a path inside the dataset: {relative!r}", where=str(base), cure=cure
        )
    target = (base / relative).resolve()
    if not target.is_relative_to(base):
        raise UntrustedFile(f"leaves the dataset: {relative!r}", where=str(base), cure=cure)
    return target


def staging_path(path: Path) -> Path:
    """A new hidden name next to `path`, for content that is still being written."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


def fsync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())


def _bounded(path: str | Path) -> bytes:
    with open(path, "rb") as handle:
        content = handle.read(JSON_LIMIT + 1)
    if len(content) > JSON_LIMIT:
        raise ValueError(f"longer than {JSON_LIMIT:,} bytes")
    return content


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _corrupt(path: str | Path, why: str) -> CorruptCheckpoint:
    return CorruptCheckpoint(
        f"not a complete safetensors file: {why}", where=str(path), cure="fetch it again"
    )
