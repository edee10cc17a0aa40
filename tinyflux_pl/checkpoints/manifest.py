"""What a checkpoint directory holds, sealed: names, sizes and hashes of its files, and the step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptCheckpoint

SCHEMA = 3
READ = (2, 3)  # 2: the averages were a whole network, which held what is frozen once more
WEIGHTS, AVERAGED, STATE, CONFIG, MANIFEST = (
    "model.safetensors",
    "ema.safetensors",
    "state.pt",
    "config.json",
    "manifest.json",
)
MOST_STEPS = 10**12
CURE = "choose another checkpoint of the run, or train again"


def write(folder: Path, step: int) -> dict[str, Any]:
    """Make every file of `folder` durable, describe it, and write that last."""
    listed = {}
    for file in sorted(folder.iterdir()):
        files.fsync_file(file)
        listed[file.name] = {"bytes": file.stat().st_size, "sha256": files.sha256(file)}
    manifest = {"schema": SCHEMA, "step": step, "files": listed}
    (folder / MANIFEST).write_bytes(files.sealed(manifest))
    return manifest


def read(folder: Path) -> dict[str, Any]:
    """The manifest, if it is as it was written; else CorruptCheckpoint. The files it lists are not looked at."""
    try:
        manifest = files.read_sealed(folder / MANIFEST)
    except (OSError, ValueError) as error:
        what = f"{MANIFEST} is missing, torn or altered ({error})"
        raise CorruptCheckpoint(what, where=str(folder), cure=CURE) from error
    if manifest.get("schema") not in READ:
        what = f"{MANIFEST} has schema {manifest.get('schema')}; this version reads {' and '.join(map(str, READ))}"
        raise CorruptCheckpoint(what, where=str(folder), cure="use the version that made it")
    if (
        type(manifest.get("step")) is not int
        or not 0 <= manifest["step"] <= MOST_STEPS
        or not _names_files(manifest.get("files"))
    ):
        raise CorruptCheckpoint(f"{MANIFEST} does not describe a checkpoint", where=str(folder), cure=CURE)
    return manifest


def verify(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise CorruptCheckpoint unless every listed file is there with its size and its sha256."""
    for name, entry in manifest["files"].items():
        file = folder / name
        try:
            whole = file.is_file() and entry == {"bytes": file.stat().st_size, "sha256": files.sha256(file)}
        except OSError as error:  # a bad sector, a file that is not ours to read
            raise CorruptCheckpoint(f"{name} cannot be read: {error}", where=str(folder), cure=CURE) from error
        if not whole:
            raise CorruptCheckpoint(f"{name} is missing, torn or altered", where=str(folder), cure=CURE)


def _names_files(listed: Any) -> bool:
    # Whoever can write a manifest can seal it, and a name is a path.
    return isinstance(listed, dict) and {WEIGHTS, CONFIG} <= listed.keys() <= {WEIGHTS, AVERAGED, STATE, CONFIG}
