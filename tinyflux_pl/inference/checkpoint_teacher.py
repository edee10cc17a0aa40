"""A run of this project as a teacher: averaged weights, with their codec and text encoder."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from torch import nn

from tinyflux_pl.checkpoints import directory, training_state
from tinyflux_pl.experts.teacher import Teacher
from tinyflux_pl.inference import described_parts
from tinyflux_pl.inference.open_checkpoint import open_checkpoint
from tinyflux_pl.methods.registry import method_of


def from_checkpoint(name: str, path: str | Path) -> Teacher:
    """The teacher in a checkpoint's folder, or in the newest valid one of a run's.

    Its weights are read on first use. Its description is judged as for drawing: CheckpointMismatch,
    ConfigError or CorruptCheckpoint.
    """
    checkpoint, read = open_cached(path), None
    # a learned word lies in the denoiser, and its text encoder reads it there
    shares_text = method_of(checkpoint.config).keeps_text
    parts = described_parts.parts(checkpoint, outline=not shares_text)
    if shares_text:
        _fill(parts.denoiser, parts.saved, checkpoint)
    else:
        read = functools.partial(_with_weights, checkpoint)
    identity = averaged(checkpoint)
    return Teacher(parts.denoiser, parts.codec, parts.text, name, identity, read=read)


def averaged(checkpoint: directory.Checkpoint) -> str:
    """The identity of a checkpoint's averaged weights."""
    return f"{checkpoint.hash}, averaged"


def open_cached(path: str | Path) -> directory.Checkpoint:
    """As `open_checkpoint`, cached while no file changes."""
    return _opened(str(Path(path).absolute()), _stamp(Path(path)))


@functools.lru_cache(maxsize=64)
def _opened(path: str, _: tuple[Any, ...]) -> directory.Checkpoint:
    return open_checkpoint(path)


def _stamp(path: Path) -> tuple[Any, ...]:
    """State of the files of a checkpoint's folder, or of the checkpoints of a run's."""
    files = [*path.glob("*"), *path.glob("*/*"), *path.glob("checkpoints/*/*")]
    states = [(str(file), file.stat()) for file in sorted(files) if file.is_file()]
    return tuple((name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in states)


def _with_weights(checkpoint: directory.Checkpoint) -> nn.Module:
    denoiser, saved = described_parts.network(checkpoint)
    _fill(denoiser, saved, checkpoint)
    return denoiser


def _fill(denoiser: nn.Module, saved: frozenset[str], checkpoint: directory.Checkpoint) -> None:
    weights = checkpoint.weights("averaged")
    training_state.require_finite(weights, str(checkpoint.path))
    directory.load_weights(denoiser, weights, str(checkpoint.path), saved)
