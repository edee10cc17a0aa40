"""A run of this project as a teacher: averaged weights, and their codec and text encoder."""

from __future__ import annotations

from pathlib import Path

from tinyflux_pl.checkpoints import directory, training_state
from tinyflux_pl.experts.teacher import Teacher
from tinyflux_pl.inference import described_parts
from tinyflux_pl.inference.open_checkpoint import open_checkpoint


def from_checkpoint(name: str, path: str | Path) -> Teacher:
    """The teacher in a checkpoint's folder, or in the newest valid one of a run's.

    Its description is judged as for drawing: CheckpointMismatch, ConfigError or CorruptCheckpoint.
    """
    checkpoint = open_checkpoint(path)
    parts = described_parts.parts(checkpoint)
    weights = checkpoint.weights("averaged")
    training_state.require_finite(weights, str(checkpoint.path))
    directory.load_weights(parts.denoiser, weights, str(checkpoint.path), parts.saved)
    return Teacher(parts.denoiser, parts.codec, parts.text, name, f"{checkpoint.hash}, averaged")
