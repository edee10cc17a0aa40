"""`from_image=x.png`: settings recorded in a PNG replace those of the user; it is drawn again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyflux_pl.config import recorded_picture
from tinyflux_pl.config.schema import Generate
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, ImageError

# keys that the file decides
DECIDED = ("prompt", "prompt_file", "negative_prompt", "seed", "n", "first", "height", "width")
DECIDED += (
    "control_hint",
    "control_strength",
    "condition",
    "grid",
    "batch_size",
    "sampler",
    "guidance",
    "strength",
    "cache",
)
# of a description: what may differ where the picture is the same
NOTED = ("device", "versions")
CURE = "give a PNG that generate.py has written, unchanged"


def with_recorded_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides, preceded by those recorded in the picture that `from_image=` names.

    What the user chooses takes the place of the picture's own choice of that key.
    """
    files = [o.partition("=")[2] for o in overrides if o.startswith("from_image=")]
    if not files or files[-1] in ("null", ""):
        return list(overrides)
    file = files[-1].strip("'\"")
    lines = recorded_picture.command(recorded_picture.read(file), file)
    keys = {o.lstrip("+").partition("=")[0] for o in overrides}
    return [*(text for text in lines if text.partition("=")[0] not in keys), *overrides]


def with_recorded_settings(plain: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the prompt, noise, size and sampler that the picture records.

    ConfigError for keys that the file decides, ImageError for a file that does not say them.
    """
    file = plain.get("from_image")
    if file is None:
        return plain
    for override in plain.get("overrides", ()):
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] in DECIDED:
            what = f"the picture records its own {key}"
            raise ConfigError(what, where=key, cure=f"leave {key}= out, or from_image=")
    recorded = recorded_picture.read(file)
    settings = _entry(recorded, "settings", dict, file)
    height, width = _size(recorded, file)
    values = {
        "prompt": _entry(recorded, "prompt", str, file),
        "negative_prompt": recorded.get("negative_prompt"),
        "seed": _entry(recorded, "seed", int, file),
        "first": _entry(recorded, "index", int, file),
        "strength": recorded.get("strength"),
        "height": height,
        "width": width,
        "sampler": {k: v for k, v in settings.items() if k != "guidance"},
        "guidance": _entry(settings, "guidance", dict, file),
        "cache": {**plain["cache"], **_cache(recorded, file)},
        "hardware": {**plain["hardware"], "precision": _entry(recorded, "precision", str, file)},
    }
    if control := recorded.get("control"):
        values |= {"control_hint": control.get("hint"), "control_strength": control.get("strength")}
    has_pictures = any(plain.get(key) for key in ("reference", "image", "control"))
    if recorded.get("pictures") and not has_pictures:
        what = f"it was drawn from pictures: {str(recorded['pictures'])[:100]}"
        cure = "give them again, as reference=, as control=, or as image= (and mask=)"
        raise ConfigError(what, where=str(file), cure=cure)
    if "checkpoint" in recorded:
        values["weights"] = _entry(recorded, "weights", str, file)
        values["checkpoint"] = plain.get("checkpoint") or _checkpoint(recorded, plain, file)
    elif recorded.get("weights") == "published" and not plain["model"].get("weights"):
        files = ", ".join(_entry(recorded, "model", dict, file).get("content", {}))
        what = f"it was drawn with published weights ({files[:100]})"
        cure = "say where they lie: model=NAME model.weights=FOLDER"
        raise ConfigError(what, where=str(file), cure=cure)
    return {**plain, **values}


def _entry(metadata: Mapping[str, Any], key: str, kind: type, file: Any) -> Any:
    value = metadata.get(key)
    if type(value) is not kind:
        raise ImageError(f"it does not record its {key}", where=str(file), cure=CURE)
    return value


def _cache(recorded: Mapping[str, Any], file: Any) -> dict[str, Any]:
    """The cache settings, checked by the schema like those of a user."""
    settings = recorded.get("cache", {})
    keys = {"kind", "threshold", "longest", "coefficients"}
    if not isinstance(settings, dict) or set(settings) - keys:
        raise ImageError("it does not record its cache", where=str(file), cure=CURE)
    return {**settings, "coefficients": settings.get("coefficients") or None}


def _size(recorded: Mapping[str, Any], file: Any) -> tuple[int, int]:
    size = _entry(recorded, "image_size", list, file)
    if len(size) != 2 or any(type(side) is not int for side in size):
        raise ImageError("it does not record its size", where=str(file), cure=CURE)
    return size[0], size[1]


def _checkpoint(recorded: Mapping[str, Any], plain: Mapping[str, Any], file: Any) -> str:
    """The folder of the run's checkpoint with the recorded seal."""
    from tinyflux_pl.checkpoints import directory
    from tinyflux_pl.core.errors import CorruptCheckpoint

    seal = _entry(recorded, "checkpoint", str, file)
    for manifest in sorted(Path(plain["paths"]["outputs"]).glob("*/checkpoints/*/manifest.json")):
        try:
            if directory.read(manifest.parent).hash == seal:
                return str(manifest.parent)
        except CorruptCheckpoint:
            continue
    what = f"no checkpoint {seal} among the runs"
    raise ConfigError(what, where=str(file), cure="say where it lies: checkpoint=FOLDER")


def redraw(pipeline: Any, config: Generate) -> list[str]:
    """Draw the picture again into the run's folder; lines with its path and the comparison.

    Raises CheckpointMismatch, before anything is drawn, where parts or settings are others.
    """
    from tinyflux_pl.inference.redraw import redrawn

    file = str(config.from_image)
    recorded = recorded_picture.read(file)
    here = json.loads(json.dumps(pipeline.description()))
    _require_same(recorded, here, file)
    path, verdict = redrawn(pipeline, file, recorded, config.output or config.run_dir)
    notes = [
        f"{key} was {recorded.get(key)}" for key in NOTED if recorded.get(key) != here.get(key)
    ]
    return [f"redrawn {path}", verdict, *notes]


def _require_same(recorded: Mapping[str, Any], here: Mapping[str, Any], file: str) -> None:
    for key, value in _leaves(here).items():
        if key.partition(".")[0] in NOTED:
            continue
        before = _leaves(recorded).get(key)
        if before != value:
            what = f"{key} was {str(before)[:60]} and is {str(value)[:60]}: another picture"
            cure = "give the weights, parts and pictures that it was drawn with"
            if key == "calibration":  # a file, which the picture does not name
                cure = "engine.calibration=FILE, the factors that it was drawn with"
            raise CheckpointMismatch(what, where=file, cure=cure)


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> plain value; input pictures are compared by hash alone."""
    if isinstance(value, Mapping):
        parts = (_leaves(part, f"{prefix}{key}.") for key, part in value.items())
        return {key: leaf for part in parts for key, leaf in part.items()}
    if prefix == "pictures." and isinstance(value, list):
        value = [pair[-1] for pair in value if isinstance(pair, list)]
    return {prefix.rstrip("."): value}
