"""The autoencoder in a checkpoint of its training: found, verified, and read.

The checkpoint's files are opened here by their sealed manifest alone, below the package that writes
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.codecs.described_networks import KINDS, described_sizes
from tinyflux_pl.codecs.trained_autoencoder import AutoencoderSizes, TrainedAutoencoder
from tinyflux_pl.core import files, fingerprint
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint
from tinyflux_pl.weights.headers import tensor_shapes
from tinyflux_pl.weights.key_diff import require_match, shapes_of

MANIFEST, CONFIG, WEIGHTS, AVERAGED = (
    "manifest.json",
    "config.json",
    "model.safetensors",
    "ema.safetensors",
)
PREFIX = "autoencoder."
CURE = "give a checkpoint, or the run's folder, of train.py experiment=fluxflow_vae"


@dataclass(frozen=True)
class AutoencoderCheckpoint:
    """A checkpoint folder, the sizes that it describes, and the hash of its weights."""

    folder: Path
    config: AutoencoderSizes
    sha256: str
    hashes: Mapping[str, str]  # of its files of weights

    def skeleton(self) -> TrainedAutoencoder:
        """The network without values, on the meta device, once keys and shapes have matched."""
        with torch.device("meta"):
            network = self.config.autoencoder()
        shapes = tensor_shapes(self.folder / WEIGHTS)
        stored = {k.removeprefix(PREFIX): s for k, s in shapes.items() if k.startswith(PREFIX)}
        require_match(shapes_of(network.state_dict()), stored, str(self.folder), CURE)
        return network

    def network(self, device: torch.device) -> TrainedAutoencoder:
        """The network with the averaged weights; CorruptCheckpoint for a file that changed."""
        network = self.skeleton()
        tensors: dict[str, Tensor] = {}
        for name, expected in self.hashes.items():
            if files.sha256(self.folder / name) != expected:
                raise CorruptCheckpoint(
                    f"{name} changed after it was written", where=str(self.folder), cure=CURE
                )
            tensors |= files.read_tensors(self.folder / name)
        values = {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}
        network.load_state_dict(values, strict=True, assign=True)
        return network.requires_grad_(False).eval().to(device)


def find(path: str | Path | None) -> AutoencoderCheckpoint:
    """The checkpoint at `path`, or the newest of the run's folder at `path`."""
    if path is None:
        raise ConfigError("a trained codec needs its weights", where="codec.checkpoint", cure=CURE)
    folder = _newest(Path(path).expanduser())
    try:
        manifest = files.read_sealed(folder / MANIFEST)
        described = files.read_json(folder / CONFIG)["denoiser"]
        hashes = {n: manifest["files"][n]["sha256"] for n in _weights(manifest)}
        if described["name"] not in KINDS:
            raise CheckpointMismatch(
                f"it holds {described['name']!r}, no autoencoder", where=str(folder), cure=CURE
            )
        config = described_sizes(described["name"], described["config"]["autoencoder"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptCheckpoint(
            f"no checkpoint of an autoencoder ({type(error).__name__}: {error})",
            where=str(folder),
            cure=CURE,
        ) from error
    return AutoencoderCheckpoint(folder.absolute(), config, fingerprint.hash_json(hashes), hashes)


def _weights(manifest: Mapping[str, Any]) -> list[str]:
    """The files of weights, in the order in which they are read."""
    return [WEIGHTS, *([AVERAGED] if AVERAGED in manifest["files"] else [])]


def _newest(path: Path) -> Path:
    """`path` itself if it is a checkpoint, else the newest one below it."""
    if (path / MANIFEST).is_file():
        return path
    saved = sorted((path / "checkpoints").glob(f"step_*/{MANIFEST}"))
    if not saved:
        raise ConfigError(f"no checkpoint in {path}", where="codec.checkpoint", cure=CURE)
    return saved[-1].parent
