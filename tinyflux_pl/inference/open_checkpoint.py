"""The checkpoint that a path names."""

from __future__ import annotations

from pathlib import Path

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import CorruptCheckpoint


def open_checkpoint(path: str | Path) -> directory.Checkpoint:
    """A checkpoint folder itself, or the newest valid one of a run's folder."""
    checkpoint, rejected = newest(path)
    for line in rejected:
        print(f"skipped {line}")
    return checkpoint


def newest(path: str | Path) -> tuple[directory.Checkpoint, list[str]]:
    """The checkpoint that `open_checkpoint` opens, and one line for each that it skips."""
    path = Path(path)
    if (path / directory.MANIFEST).is_file() or not path.is_dir():
        return directory.read(path), []
    for folder in (path / "checkpoints", path):
        checkpoint, rejected = directory.newest_valid(folder)
        if checkpoint is not None:
            return checkpoint, rejected
        if rejected:
            raise CorruptCheckpoint(
                "no valid checkpoint: " + "; ".join(rejected), where=str(folder)
            )
    return directory.read(path), []


def is_checkpoint(path: Path) -> bool:
    """True for the folder of a checkpoint or a run, not for an adapter's file or folder."""
    return (path / directory.MANIFEST).is_file() or (path / "checkpoints").is_dir()
