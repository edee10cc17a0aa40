"""Where an autoencoder of a release lies, and how a folder's weights enter diffusers' class."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from tinyflux_pl.codecs.autoencoder_layout import holds_autoencoder
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint, HubError
from tinyflux_pl.core.files import require_tensor_file
from tinyflux_pl.core.key_report import listed
from tinyflux_pl.core.known_releases import apposition
from tinyflux_pl.core.stored_weights import require_network
from tinyflux_pl.core.weight_files import tensor_shapes
from tinyflux_pl.core.weight_folder import WeightFiles, fetch, weights_in

STEMS = ("diffusion_pytorch_model",)
_SHAPES = re.compile(r"size mismatch for (\S+): .*?torch\.Size\((\[.*?\])\).*?torch\.Size\((\[.*?\])\)")


def locate(weights: str, revision: str | None, subfolder: str) -> Path:
    """The single file that holds the autoencoder, or its folder: in a release, or in the one around a file.

    Raises what core.weight_folder.fetch does, ConfigError for a file without an autoencoder, HubError for a folder
    that lacks weights or config.json.
    """
    root = fetch(weights, revision, subfolder, STEMS)
    if root.is_file():
        require_tensor_file(root)
        if holds_autoencoder(root):
            return root
        if not (root.parent / subfolder / "config.json").is_file():
            held = tensor_shapes(root)
            require_network(held, str(root))  # which would tell more
            cure = "codec.weights=FOLDER or FILE.safetensors, or release.weights=FOLDER of the whole pipeline"
            raise ConfigError(f"this file{apposition(held)} holds no autoencoder", where=str(root), cure=cure)
        root = root.parent
    folder = root / subfolder
    named = (folder / "config.json").is_file()
    if not named or weights_in(folder, STEMS) is None:
        what = "no safetensors weights" if named else "no config.json"
        cure = "release.weights=FOLDER of the whole pipeline, or check codec.weights and codec.subfolder"
        raise HubError(what, where=str(folder), cure=cure)
    return folder


def files_of(place: Path) -> WeightFiles:
    """The safetensors of a place that `locate` gave."""
    found = WeightFiles((place,)) if place.is_file() else weights_in(place, STEMS)
    if found is None:
        raise HubError("no safetensors weights", where=str(place), cure="check codec.weights and codec.subfolder")
    return found


def from_folder(kind: str, folder: Path, dtype: torch.dtype) -> nn.Module:
    """The autoencoder by diffusers' own reading, which also knows the key names of old releases; strictly.

    Raises CheckpointMismatch for keys and shapes that are not config.json's, CorruptCheckpoint for a torn file.
    """
    import diffusers

    found = files_of(folder)
    for file in found.files:
        require_tensor_file(file)
    try:
        loaded = getattr(diffusers, kind).from_pretrained(
            str(folder),
            torch_dtype=dtype,
            use_safetensors=True,
            variant=found.variant,
            local_files_only=True,
            low_cpu_mem_usage=False,  # otherwise it asks for another package
            output_loading_info=True,
        )
    except OSError as error:  # what diffusers makes of a torn file
        what = f"{found.files[0].name} is not a whole safetensors file"
        raise CorruptCheckpoint(what, where=str(folder), cure="fetch it again") from error
    except (RuntimeError, ValueError) as error:  # shapes
        shapes = {key: f": file {held}, config.json {own}" for key, held, own in _SHAPES.findall(str(error))}
        raise _mismatch(listed(shapes) if shapes else str(error).splitlines()[0][:600], folder) from error
    # diffusers annotates the model alone; with output_loading_info it returns a pair
    model, report = cast(tuple[nn.Module, dict[str, Any]], loaded)
    wrong = "; ".join(f"{kind}: {listed(dict.fromkeys(map(str, keys), ''))}" for kind, keys in report.items() if keys)
    if wrong:
        raise _mismatch(wrong, folder)
    return model


def statistics_of(config: dict[str, Any], scaling: str, name: str) -> tuple[Tensor, Tensor] | None:
    """latents_mean and latents_std of a config.json, each (C, 1, 1) in fp32; None where it has neither.

    ConfigError where there is one without the other, of another length than the channels, not positive, beside a
    shift_factor, or where `scaling` leaves shifts out: none of these says which latents are meant.
    """
    given = [config.get(key) for key in ("latents_mean", "latents_std")]
    if given == [None, None]:
        return None
    where = f"config.json of {name}"
    wrong = "one of them is missing" if None in given else ""
    channels = config.get("latent_channels", 4)
    sized = not wrong and all(isinstance(part, list | tuple) and len(part) == channels for part in given)
    numbers = sized and all(isinstance(n, int | float) and math.isfinite(n) for part in given for n in part or ())
    if not wrong and not (numbers and all(n > 0 for n in given[1] or ())):
        wrong = f"each must be {channels} finite numbers, the deviations positive"
    elif not wrong and (config.get("shift_factor") or scaling != "shifted"):
        wrong = "a shift_factor stands beside them" if config.get("shift_factor") else f"scaling={scaling}"
    if wrong:
        cure = "use the config.json that the autoencoder was published with, or take them out of it"
        raise ConfigError(f"latents_mean and latents_std: {wrong}", where=where, cure=cure)
    mean, deviation = (torch.tensor(part, dtype=torch.float32)[:, None, None] for part in given)
    return mean, deviation


def _mismatch(wrong: str, folder: Path) -> CheckpointMismatch:
    what = f"the weights are not those of this autoencoder: {wrong}"
    return CheckpointMismatch(what, where=str(folder), cure="use config.json and weights of one release")
