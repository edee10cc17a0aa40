"""A checkpoint directory: weights, averages, training state, and a sealed manifest written last."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.checkpoints import manifest as sealed
from tinyflux_pl.checkpoints import training_state
from tinyflux_pl.checkpoints.manifest import AVERAGED, CONFIG, CURE, MANIFEST, STATE, WEIGHTS
from tinyflux_pl.core import files, fingerprint, folders
from tinyflux_pl.core.errors import CorruptCheckpoint, UntrustedFile
from tinyflux_pl.weights.headers import tensor_shapes
from tinyflux_pl.weights.key_diff import require_match, shapes_of


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint directory."""

    path: Path
    config: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps of the weights."""
        return int(self.manifest["step"])

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that identify these weights."""
        return fingerprint.hash_json(self.manifest["files"])[:12]

    def weights(self, kind: str = "averaged") -> dict[str, Tensor]:
        """All tensors of the network: `averaged` (EMA; raw where there is no average) or `raw`."""
        tensors = files.read_tensors(self.path / WEIGHTS)
        if kind == "averaged" and AVERAGED in self.manifest["files"]:
            tensors.update(files.read_tensors(self.path / AVERAGED))
        return tensors

    def state(self) -> dict[str, Any]:
        """Optimizer state and counters: tensors and plain types only.

        Raises UntrustedFile for a file that needs more than that, CorruptCheckpoint for one that is
        truncated, missing, or not a training state.
        """
        if STATE not in self.manifest["files"]:
            raise CorruptCheckpoint(
                "it has weights but no training state", where=str(self.path), cure=CURE
            )
        return training_state.read(self.path / STATE)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every raw weight, from the header, without torch.compile's prefixes."""
        shapes = tensor_shapes(self.path / WEIGHTS)
        return {plain_key(name): shape for name, shape in shapes.items()}


def save(
    path: str | Path,
    *,
    step: int,
    config: dict[str, Any],
    weights: Mapping[str, Tensor],
    averaged: Mapping[str, Tensor] | None,
    state: dict[str, Any] | None,
) -> Checkpoint:
    """Write a checkpoint atomically: the target is complete or unchanged.

    Files are written to a staging folder and hashed, the manifest last, then synced and renamed.
    `averaged` has only the tensors that have an average, so that frozen ones are stored once.
    Removes the leftovers of killed writers. Raises DiskFull.
    """
    path = Path(path)
    folders.remove_leftovers(path.parent)
    num_bytes = sum(tensor.nbytes for tensor in _tensors([weights, averaged, state]))
    with folders.staged(path, num_bytes) as folder:
        files.save_tensors(folder / WEIGHTS, plain_keys(weights))
        if averaged is not None:
            files.save_tensors(folder / AVERAGED, plain_keys(averaged))
        if state is not None:
            _write_state(folder / STATE, state)
        (folder / CONFIG).write_bytes(files.indented(config))
        manifest = sealed.write(folder, step)
    return Checkpoint(path, config, manifest)


def read(path: str | Path) -> Checkpoint:
    """Open a checkpoint and verify the manifest and every file it lists.

    Raises CorruptCheckpoint for any that changed, UntrustedFile for a single file, such as a
    pickle, which is not opened.
    """
    path = Path(path)
    if path.is_file():
        what = f"{path.name} is a file; a checkpoint is a directory. It was not opened"
        cure = "give a checkpoint folder; safetensors weights go to model.weights=FILE.safetensors"
        if (path.parent / MANIFEST).is_file():
            cure = f"give the checkpoint's folder: {path.parent}"
        raise UntrustedFile(what, where=str(path), cure=cure)
    if not path.is_dir():
        raise CorruptCheckpoint("no such folder", where=str(path), cure=_existing(path))
    if not (path / MANIFEST).is_file():
        raise CorruptCheckpoint(
            f"not a checkpoint: no {MANIFEST}", where=str(path), cure=_nearby(path) or CURE
        )
    manifest = sealed.read(path)
    sealed.verify(path, manifest)
    try:
        config = files.read_json(path / CONFIG)
    except (OSError, ValueError) as error:
        raise CorruptCheckpoint(
            f"{CONFIG} cannot be read: {error}", where=str(path), cure=CURE
        ) from error
    if not isinstance(config, dict):
        raise CorruptCheckpoint(f"{CONFIG} does not describe a network", where=str(path), cure=CURE)
    return Checkpoint(path, config, manifest)


def verifies(path: str | Path) -> bool:
    """True if `path` is a complete checkpoint."""
    try:
        read(path)
    except (CorruptCheckpoint, UntrustedFile):
        return False
    return True


def list_steps(folder: str | Path) -> list[Path]:
    """Checkpoint directories of a run with a valid manifest, oldest step first."""
    return _by_step(folder)[0]


def newest_valid(folder: str | Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint, and one line for each one rejected, which may be newer."""
    ordered, unreadable = _by_step(folder)
    rejected = [f"{path.name}: {error.what}" for path, error in unreadable.items()]
    for path in reversed(ordered):
        try:
            return read(path), rejected
        except CorruptCheckpoint as error:
            rejected.append(f"{path.name}: {error.what}")
    return None, rejected


def prune(
    folder: str | Path, keep: int, pattern: str, is_valid: Callable[[Path], bool] = verifies
) -> list[Path]:
    """Remove checkpoints that match `pattern` and are older than the newest `keep` valid ones.

    Returns those removed. An invalid checkpoint does not count among the `keep`.
    """
    keep = max(keep, 1)
    matching = [path for path in reversed(list_steps(folder)) if path.match(pattern)]
    if len(matching) <= keep:
        return []
    removed: list[Path] = []
    num_valid = 0
    for path in matching:
        if num_valid < keep:
            num_valid += is_valid(path)
        else:
            folders.remove_tree(path)
            removed.append(path)
    return removed


def load_weights(
    module: torch.nn.Module,
    tensors: Mapping[str, Tensor],
    where: str,
    names: Collection[str] | None = None,
) -> None:
    """Load strictly, compiled or not: the whole network, or those `names` of its state dict.

    CheckpointMismatch lists missing, extra and mis-shaped keys.
    """
    state = module.state_dict()
    selected = {k: v for k, v in state.items() if names is None or k in names}
    module_keys = {plain_key(name): name for name in selected}
    expected, tensors = plain_keys(selected), plain_keys(tensors)
    cure = "use the model= and experts= of the run that wrote the checkpoint"
    require_match(shapes_of(expected), shapes_of(tensors), where, cure)
    read = {module_keys[key]: tensor for key, tensor in tensors.items()}
    module.load_state_dict({**state, **read}, strict=True)


def plain_key(key: str) -> str:
    """A parameter's name without the wrappers that torch.compile puts around modules."""
    return re.sub(r"(^|\.)_orig_mod\.", r"\1", key)


def plain_keys(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under their names in a network that is not compiled."""
    return {plain_key(key): tensor for key, tensor in tensors.items()}


def _write_state(path: Path, state: dict[str, Any]) -> None:
    try:
        with open(path, "wb") as handle:
            torch.save(state, handle)
    except RuntimeError as error:  # torch's, which wraps the OSError of the disk
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def _by_step(folder: str | Path) -> tuple[list[Path], dict[Path, CorruptCheckpoint]]:
    """Directories with a valid manifest, oldest step first, and the errors of the others."""
    steps: dict[Path, int] = {}
    unreadable: dict[Path, CorruptCheckpoint] = {}
    for path in sorted(Path(folder).glob("[!.]*/")):
        if not any((path / name).is_file() for name in (MANIFEST, WEIGHTS, AVERAGED, STATE)):
            continue
        try:
            steps[path] = sealed.read(path)["step"]
        except CorruptCheckpoint as error:
            unreadable[path] = error
    return sorted(steps, key=lambda path: (steps[path], path.name)), unreadable


def _existing(path: Path) -> str:
    """The cure for a folder that does not exist: the one with the nearest name."""
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("[!.]*/")], n=1)
    hint = f"did you mean {path.parent / near[0]}? " if near else ""
    return f"{hint}name a run's folder, or a checkpoint's, as seen from {Path.cwd()}"


def _nearby(path: Path) -> str:
    for folder in (path, path / "checkpoints", path.parent):
        steps = list_steps(folder) if folder.is_dir() else []
        if steps:
            return f"name one of its checkpoints: {steps[-1]}"
    return ""
