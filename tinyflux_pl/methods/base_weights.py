"""The frozen weights that an adapter belongs to: a reference by content, and their loading.

A reference is plain data: `kind` (checkpoint, release or file), `place`, and what identifies the
content. A base that is missing or was changed is refused before an adapter is put on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.directory import Checkpoint
from tinyflux_pl.checkpoints.start import start_from
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint, TinyFluxError
from tinyflux_pl.core.protocols import Path as Clock
from tinyflux_pl.denoisers.registry import build_denoiser, denoiser_class
from tinyflux_pl.weights.headers import known_sha256

CHECKPOINT, RELEASE, FILE = "checkpoint", "release", "file"
SOURCE = ("weights", "revision", "variant", "weights_file")  # of a model's node
MOVED = "if it lies elsewhere now, name the place: base=FOLDER (train.py: init=, model.weights=)"


def of_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """The reference to a checkpoint's averaged weights."""
    path = str(checkpoint.path.resolve())
    content = {"hash": checkpoint.hash, "step": checkpoint.step, "weights": "averaged"}
    return {"kind": CHECKPOINT, "place": path, **content}


def of_release(model: Mapping[str, Any], weight_files: Sequence[Path]) -> dict[str, Any]:
    """The reference to the files that the weights of a `model` node were read from."""
    source = {key: model[key] for key in SOURCE if model.get(key) is not None}
    path = Path(source["weights"]).expanduser()
    if path.exists():
        source["weights"] = str(path.resolve())
    return {"kind": RELEASE, "place": source["weights"], **source, **_content(weight_files)}


def of_file(file: Path) -> dict[str, Any]:
    """The reference to a .safetensors file with the network's own keys."""
    return {"kind": FILE, "place": str(file.resolve()), **_content([file])}


def require_same(then: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointMismatch unless two references have the same content."""
    keys = ("kind", "hash", "files")
    if all(then.get(key) == now.get(key) for key in keys):
        return
    raise CheckpointMismatch(
        f"the adapter belongs to {described(then)}, and this is {described(now)}",
        where=where,
        cure="give the base that it was trained on, unchanged, or train a new adapter: run=NAME",
    )


def described(reference: Mapping[str, Any]) -> str:
    """A reference in words: place and content."""
    content = str(reference.get("hash") or "")
    if isinstance(hashes := reference.get("files"), Mapping):
        content = ", ".join(f"{name} {str(value)[:12]}" for name, value in hashes.items())
    return f"{reference.get('place')} ({content})"


def base_denoiser(
    name: str,
    config: dict[str, Any],
    clock: Clock,
    reference: Mapping[str, Any],
    where: str,
    path: str | None = None,
) -> nn.Module:
    """The denoiser that `config` describes with its base's weights, from `place` if that is given.

    Raises CheckpointMismatch for a base that is missing or has another content.
    """
    moved = str(path or reference.get("place"))
    try:
        denoiser, reference_here = _read(name, config, clock, reference, moved)
    except CheckpointMismatch:
        raise
    except (TinyFluxError, OSError) as error:
        what = error.what if isinstance(error, TinyFluxError) else str(error)
        raise CheckpointMismatch(
            f"the base of this adapter, {described(reference)}, cannot be read: {what}",
            where=where,
            cure=MOVED,
        ) from error
    require_same(reference, reference_here, where)
    return denoiser


def _read(
    name: str, config: dict[str, Any], clock: Clock, reference: Mapping[str, Any], path: str
) -> tuple[nn.Module, dict[str, Any]]:
    if reference.get("kind") == RELEASE:
        source = {key: reference[key] for key in SOURCE if key in reference} | {"weights": path}
        denoiser: Any = denoiser_class(name).from_released(config, clock, source)
        return denoiser, of_release(source, denoiser.weight_files)
    reference_here, tensors = start_weights(Path(path))
    denoiser = build_denoiser(name, config, clock)
    start_from(denoiser, tensors, path, complete=True)
    return denoiser, reference_here


def start_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reference and tensors of a checkpoint, of a run's newest one, or of a safetensors file.

    Raises CorruptCheckpoint, UntrustedFile, and CheckpointMismatch for an adapter's checkpoint.
    """
    path = path.expanduser()
    if path.is_file():
        return of_file(path), files.read_tensors(path)
    checkpoint = opened(path)
    if "base" in checkpoint.config:
        raise CheckpointMismatch(
            f"the checkpoint holds an adapter of {described(checkpoint.config['base'])}",
            where=str(checkpoint.path),
            cure="name that base, or (method=lora) merge the two first: "
            "python -m tinyflux_pl.app.adapters merge",
        )
    return of_checkpoint(checkpoint), checkpoint.weights("averaged")


def opened(path: Path) -> Checkpoint:
    """A checkpoint's folder itself, or the newest valid checkpoint of a run's folder."""
    if (path / directory.MANIFEST).is_file():
        return directory.read(path)
    for folder in (path / "checkpoints", path):
        checkpoint, rejected = directory.newest_valid(folder)
        if checkpoint is not None:
            return checkpoint
        if rejected:
            what = f"no valid checkpoint: {'; '.join(rejected)}"
            raise CorruptCheckpoint(what, where=str(folder), cure="choose another run")
    return directory.read(path)


def _content(weight_files: Sequence[Path]) -> dict[str, Any]:
    return {"files": {file.name: known_sha256(file) for file in weight_files}}
