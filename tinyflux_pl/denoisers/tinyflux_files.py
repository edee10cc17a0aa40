"""The file of the published TinyFlux weights, and its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import HubError
from tinyflux_pl.denoisers.tinyflux_reference import ReferenceTinyFlux, load_reference
from tinyflux_pl.weights import hub
from tinyflux_pl.weights.dequantize import plain


def published_file(weights: str, weights_file: str = "", revision: str | None = None) -> FilePath:
    """The safetensors file named by `weights`.

    That is the file itself, or `weights_file` in a folder or a pinned repository.
    """
    allow = [weights_file, "config.json"] if weights_file else None
    path = hub.resolve(weights, revision, allow) if allow else hub.resolve(weights, revision)
    file = path / weights_file if path.is_dir() else path
    if not file.is_file() or file.suffix != ".safetensors":
        raise HubError(
            f"not a safetensors file: {file.name}",
            where=str(path),
            cure="name the file: model.weights=FILE.safetensors, or model.weights_file=NAME within "
            "the folder",
        )
    return file


def read_safetensors(file: FilePath) -> dict[str, Tensor]:
    """A file's tensors in fp32.

    CorruptCheckpoint for a truncated or foreign file, UntrustedFile for a pickle. Tensors packed
    with scales are dequantized, or refused with CheckpointMismatch (weights.dequantize).
    """
    return {
        key: value.float()
        for key, value in plain(files.read_tensors(file), torch.float32, str(file)).items()
    }


def released_network(
    settings: Mapping[str, Any], source: Mapping[str, Any]
) -> tuple[ReferenceTinyFlux, FilePath]:
    """The published network at `source` (weights, weights_file, revision), and its file."""
    options = source.get("weights_file", ""), source.get("revision")
    file = published_file(str(source["weights"]), *options)
    return load_reference(settings, read_safetensors(file)), file
