"""A checkpoint is a directory: weights, averaged weights, training state, and a manifest last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core import files, fingerprint
from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint

WEIGHTS, AVERAGED, STATE, CONFIG, MANIFEST = (
    "model.safetensors",
    "ema.safetensors",
    "state.pt",
    "config.json",
    "manifest.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint directory."""

    path: Path
    config: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps the weights have seen."""
        return int(self.manifest["step"])

    @property
    def hash(self) -> str:
        """Twelve hex digits that name these weights."""
        return fingerprint.of(self.manifest["files"])[:12]

    def weights(self, which: str = "averaged") -> dict[str, Tensor]:
        """The network's tensors: `averaged` (EMA; raw where none were kept) or `raw`."""
        from safetensors.torch import load_file

        averaged = self.path / AVERAGED
        return load_file(averaged if which == "averaged" and averaged.exists() else self.path / WEIGHTS)

    def state(self) -> dict[str, Any]:
        """Optimizer state and counters: tensors and plain types only."""
        return torch.load(self.path / STATE, map_location="cpu", weights_only=True)


def save(
    path: str | Path,
    *,
    step: int,
    config: dict[str, Any],
    weights: Mapping[str, Tensor],
    averaged: Mapping[str, Tensor] | None,
    state: dict[str, Any] | None,
) -> Checkpoint:
    """Write beside the target, hash, manifest last, fsync, rename: the target is whole or absent."""
    path = Path(path)
    if path.exists():
        return read(path)
    with files.staged_directory(path) as folder:
        files.write_tensors(folder / WEIGHTS, weights)
        if averaged is not None:
            files.write_tensors(folder / AVERAGED, averaged)
        if state is not None:
            _write_state(folder / STATE, state)
        files.write_json(folder / CONFIG, config)
        listed = {f.name: {"bytes": f.stat().st_size, "sha256": files.sha256(f)} for f in sorted(folder.iterdir())}
        files.write_json(folder / MANIFEST, {"schema": 1, "step": step, "files": listed})
    return read(path)


def _write_state(path: Path, state: dict[str, Any]) -> None:
    try:
        with open(path, "wb") as handle:
            torch.save(state, handle)
    except RuntimeError as error:  # behind which torch hides what the disk said
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def read(path: str | Path) -> Checkpoint:
    """Open and verify: every listed file is there with its size and its sha256."""
    path = Path(path)
    cure = "choose another checkpoint of the run, or train again"
    if not (path / MANIFEST).is_file():
        raise CorruptCheckpoint(f"not a checkpoint: no {MANIFEST}", where=str(path), cure=_nearby(path) or cure)
    manifest = json.loads((path / MANIFEST).read_text())
    for name, entry in manifest["files"].items():
        file = files.contained_join(path, name)
        if not file.is_file() or file.stat().st_size != entry["bytes"] or files.sha256(file) != entry["sha256"]:
            raise CorruptCheckpoint(f"{name} is missing, torn or altered", where=str(path), cure=cure)
    return Checkpoint(path, json.loads((path / CONFIG).read_text()), manifest)


def list_steps(folder: str | Path) -> list[Path]:
    """Checkpoint directories of a run that have a manifest, oldest step first."""
    found = [p.parent for p in Path(folder).glob(f"*/{MANIFEST}") if not p.parent.name.startswith(".")]
    return sorted(found, key=lambda p: int(json.loads((p / MANIFEST).read_text())["step"]))


def newest_valid(folder: str | Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, and one line for each newer one that did not."""
    rejected = []
    for path in reversed(list_steps(folder)):
        try:
            return read(path), rejected
        except CorruptCheckpoint as error:
            rejected.append(f"{path.name}: {error.what}")
    return None, rejected


def prune(folder: str | Path, keep: int, pattern: str) -> list[Path]:
    """Remove the oldest that match `pattern` until `keep` remain; the newest one always stays."""
    matching = [p for p in list_steps(folder) if p.match(pattern)]
    dropped = matching[: max(0, len(matching) - max(keep, 1))]
    for path in dropped:
        shutil.rmtree(path)
    return dropped


def load_weights(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Strict load; what is missing, unexpected or of another shape is listed."""
    own = module.state_dict()
    missing = sorted(own.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - own.keys())
    shapes = [
        f"{k}: checkpoint {tuple(tensors[k].shape)}, network {tuple(own[k].shape)}"
        for k in sorted(own.keys() & tensors.keys())
        if own[k].shape != tensors[k].shape
    ]
    if missing or unexpected or shapes:
        listed = [
            f"{len(names)} {title}: " + ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
            for title, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
            if names
        ]
        raise CheckpointMismatch(
            "the weights are not this network's\n    " + "\n    ".join(listed),
            where=where,
            cure="use the model= and experts= of the run that made the checkpoint",
        )
    module.load_state_dict(dict(tensors), strict=True)


def _nearby(path: Path) -> str:
    for folder in (path, path / "checkpoints", path.parent):
        found = list_steps(folder) if folder.is_dir() else []
        if found:
            return f"checkpoint={found[-1]}"
    return ""
