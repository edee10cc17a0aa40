"""Export a trained UNet as an embedded teacher: fp16 weights, and a description with its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tinyflux_pl.checkpoints.directory import Checkpoint
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.experts.teacher import ASSETS


def export_teacher(
    checkpoint: Checkpoint, name: str, recipe: dict[str, Any], folder: str | Path | None = None
) -> Path:
    """Write `<folder>/<name>.safetensors` (averaged weights, fp16) and `<name>.json`.

    Return the first.

    Raises ConfigError for a checkpoint that is not a UNet's: extractors read a UNet's layers.
    """
    folder = ASSETS if folder is None else Path(folder)
    config = checkpoint.config
    if config["denoiser"]["name"] != "unet":
        raise ConfigError(
            f"a {config['denoiser']['name']!r} cannot be a teacher",
            where=str(checkpoint.path),
            cure="use model=unet",
        )
    weights = {k: v.to(torch.float16) for k, v in checkpoint.weights("averaged").items()}
    path = folder / f"{name}.safetensors"
    files.write_tensors(path, weights)
    description = {
        "denoiser": "unet",
        "config": config["denoiser"]["config"],
        "path": config["path"],
        "prediction": config["denoiser"]["config"]["prediction"],
        "codec": config["codec"],
        "text": config["text"],
        "sha256": files.sha256(path),
        "recipe": recipe,
    }
    files.write_json(folder / f"{name}.json", description)
    return path
