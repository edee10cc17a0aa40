"""The sealed manifest of a checkpoint: step, and names, sizes and hashes of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptCheckpoint

SCHEMA = 3
READABLE = (2, 3)  # in schema 2 the averages include the frozen tensors
WEIGHTS = "model.safetensors"
AVERAGED = "ema.safetensors"
STATE = "state.pt"
CONFIG = "config.json"
MANIFEST = "manifest.json"
MAX_STEP = 10**12
CURE = "choose another checkpoint of the run, or train again"


def write(folder: Path, step: int) -> dict[str, Any]:
    """Flush every file of `folder` to disk, hash it, and write the manifest last."""
    entries = {}
    for file in sorted(folder.iterdir()):
        files.fsync_file(file)
        entries[file.name] = {"bytes": file.stat().st_size, "sha256": files.sha256(file)}
    manifest = {"schema": SCHEMA, "step": step, "files": entries}
    (folder / MANIFEST).write_bytes(files.sealed(manifest))
    return manifest


def read(folder: Path) -> dict[str, Any]:
    """The manifest; CorruptCheckpoint if it changed. The files it lists are not read."""
    try:
        manifest = files.read_sealed(folder / MANIFEST)
    except (OSError, ValueError) as error:
        raise CorruptCheckpoint(
            f"{MANIFEST} is missing, truncated or altered ({error})", where=str(folder), cure=CURE
        ) from error
    if manifest.get("schema") not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise CorruptCheckpoint(
            f"{MANIFEST} has schema {manifest.get('schema')}; this version reads {readable}",
            where=str(folder),
            cure="use the version that wrote it",
        )
    if (
        type(manifest.get("step")) is not int
        or not 0 <= manifest["step"] <= MAX_STEP
        or not _is_file_table(manifest.get("files"))
    ):
        raise CorruptCheckpoint(
            f"{MANIFEST} does not describe a checkpoint", where=str(folder), cure=CURE
        )
    return manifest


def verify(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise CorruptCheckpoint unless every listed file has its size and SHA-256."""
    for name, entry in manifest["files"].items():
        file = folder / name
        try:
            intact = file.is_file() and entry == {
                "bytes": file.stat().st_size,
                "sha256": files.sha256(file),
            }
        except OSError as error:  # a bad sector, or no permission
            raise CorruptCheckpoint(
                f"{name} cannot be read: {error}", where=str(folder), cure=CURE
            ) from error
        if not intact:
            raise CorruptCheckpoint(
                f"{name} is missing, truncated or altered", where=str(folder), cure=CURE
            )


def _is_file_table(entries: Any) -> bool:
    # A seal proves no origin, and a name is a path: only the known names are accepted.
    required = {WEIGHTS, CONFIG}
    allowed = {WEIGHTS, AVERAGED, STATE, CONFIG}
    return isinstance(entries, dict) and required <= entries.keys() <= allowed
