"""The configuration of a checkpoint, without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints import manifest as sealed
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptCheckpoint


def config_of(path: str | Path) -> dict[str, Any]:
    """config.json of a checkpoint's folder, or of the newest in a run's folder.

    Only this file's hash is verified. Raises as directory.read does.
    """
    folder = _folder(Path(path))
    manifest = sealed.read(folder)
    sealed.verify(folder, {"files": {sealed.CONFIG: manifest["files"][sealed.CONFIG]}})
    try:
        return files.read_object(folder / sealed.CONFIG)
    except OSError as error:
        raise CorruptCheckpoint(
            f"{sealed.CONFIG} cannot be read: {error}", where=str(folder), cure=sealed.CURE
        ) from error


def _folder(path: Path) -> Path:
    if (path / sealed.MANIFEST).is_file():
        return path
    for folder in (path / "checkpoints", path):
        if folder.is_dir() and (steps := directory.list_steps(folder)):
            return steps[-1]
    return directory.read(path).path  # raises with the reason
