"""The parts that a checkpoint's config.json describes, checked before any is built.

Whoever sends a checkpoint can seal it. So its description is held to known names and plain values,
the network is first built without memory (meta device) and with no more tensors than the weights'
header names, and compared with it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks

from tinyflux_pl.checkpoints.directory import Checkpoint, plain_keys
from tinyflux_pl.codecs.registry import build_codec
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, MemoryPlanError
from tinyflux_pl.denoisers.registry import build_denoiser
from tinyflux_pl.diffusion.paths import build_path
from tinyflux_pl.engine.peak_memory import available_bytes
from tinyflux_pl.inference.described_text import with_text_network
from tinyflux_pl.methods.base_weights import base_denoiser
from tinyflux_pl.methods.method import Method
from tinyflux_pl.methods.registry import method_of
from tinyflux_pl.sampling.images import settings_of
from tinyflux_pl.sampling.loop import SamplerSettings
from tinyflux_pl.text.registry import build_text
from tinyflux_pl.weights import hub
from tinyflux_pl.weights.key_diff import require_match, shapes_of

CURE = "use a checkpoint written by your own run"
MISMATCH = "use the model= and experts= of the run that made the checkpoint"
NAMED = ("path", "denoiser", "codec", "text")
LARGEST, LONGEST, MOST, DEEPEST = 2**31, 4096, 10**5, 16  # a number, a text, values in all, levels
MOST_STEPS, LONGEST_SIDE = 10_000, 2**16
# releases that this project's own choices name: a checkpoint trained with them may fetch them
REPOSITORIES = frozenset(
    (
        *(
            "black-forest-labs/FLUX.1-schnell",
            "black-forest-labs/FLUX.2-dev",
            "google/flan-t5-base",
        ),
        *("openai/clip-vit-large-patch14", "stabilityai/stable-diffusion-xl-base-1.0"),
        *("stabilityai/stable-diffusion-3.5-medium", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        "AbstractPhil/tinyflux-experts",
    )
)


@dataclass(frozen=True)
class DescribedParts:
    """A newly initialised network with the codec, text encoder, settings and size beside it."""

    denoiser: nn.Module
    saved: frozenset[str]  # names of its tensors that the checkpoint holds
    codec: Any
    text: Any
    settings: SamplerSettings
    image_size: tuple[int, int]


def parts(
    checkpoint: Checkpoint, *, outline: bool = False, base: str | None = None
) -> DescribedParts:
    """Build the parts of a checkpoint's description.

    Raises CheckpointMismatch or ConfigError for an invalid description, MemoryPlanError for too
    little memory. `outline` leaves the denoiser on the meta device, without memory; `base` is where
    the frozen weights of an adapter lie now.
    """
    config, where = checkpoint.config, str(checkpoint.path)
    require_plain(config, where)
    with explained(where):
        for name in NAMED:
            if not isinstance(config[name]["name"], str) or not isinstance(
                config[name]["config"], Mapping
            ):
                raise TypeError(f"{name} is not described")
        settings, size = settings_of(config["sampler"]), _size(config["image_size"])
        if settings.steps > MOST_STEPS:
            raise ValueError(f"{settings.steps:,} sampler steps")
        for name in ("codec", "text"):
            _require_known(config[name]["config"], name, where)
        codec = build_codec(config["codec"]["name"], config["codec"]["config"])
        text = build_text(config["text"]["name"], config["text"]["config"])
    denoiser, saved, method = _network(checkpoint, outline=outline, base=base)
    text = method.sampling_text(text)
    return DescribedParts(denoiser, saved, codec, text, settings, size)


def network(
    checkpoint: Checkpoint, *, outline: bool = False, base: str | None = None
) -> tuple[nn.Module, frozenset[str]]:
    """The denoiser, with its skeleton checked against the weights' header, and tensor names.

    It is newly initialised, or around an adapter with its base's weights. `outline` is the skeleton
    itself, on the meta device.
    """
    return _network(checkpoint, outline=outline, base=base)[:2]


def _network(
    checkpoint: Checkpoint, *, outline: bool, base: str | None
) -> tuple[nn.Module, frozenset[str], Method]:
    config, where = checkpoint.config, str(checkpoint.path)
    require_plain(config, where)
    with explained(where):
        clock = build_path(config["path"]["name"], config["path"]["config"])
        described = config["denoiser"]["name"], config["denoiser"]["config"], clock
        stored_shapes = checkpoint.shapes()
        method = method_of(config)
        # of an adapter the base is not in the file
        most = MOST if method.adds_to_base else len(stored_shapes)
        with torch.device("meta"), _no_more_tensors_than(most):
            skeleton = with_text_network(build_denoiser(*described), config["text"])
            if method.adds_to_base:
                method.prepare(skeleton)
        saved = method.saved(skeleton)
        saved_tensors = {
            name: tensor for name, tensor in skeleton.state_dict().items() if name in saved
        }
        require_match(shapes_of(plain_keys(saved_tensors)), stored_shapes, where, MISMATCH)
        if outline:
            return skeleton.eval(), saved, method
        _require_memory(skeleton, where)
        if not method.adds_to_base:
            return with_text_network(build_denoiser(*described), config["text"]), saved, method
    reference = config.get("base")
    if not isinstance(reference, Mapping):
        raise CheckpointMismatch("the adapter names no base", where=where, cure=CURE)
    _require_known({"weights": base or reference.get("weights")}, "base", where)
    denoiser = base_denoiser(*described, reference, where, base)
    method.prepare(denoiser)
    return denoiser, saved, method


@contextmanager
def explained(where: str) -> Generator[None]:
    """Re-raise errors of a construction from unsuitable values as CheckpointMismatch."""
    unusual = (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
    )
    try:
        yield
    except (*unusual, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        what = (
            f"config.json describes no network that can be built ({type(error).__name__}: {reason})"
        )
        raise CheckpointMismatch(what, where=where, cure=CURE) from error


def _size(value: Any) -> tuple[int, int]:
    height, width = value
    if any(type(side) is not int or not 1 <= side <= LONGEST_SIDE for side in (height, width)):
        raise ValueError(f"image_size {value!r}")
    return height, width


def require_plain(config: Mapping[str, Any], where: str) -> None:
    """Require numbers, texts and nesting within bounds."""
    left: list[tuple[str, Any, int]] = [("", config, 0)]
    count = 0
    while left:
        key_path, value, depth = left.pop()
        count += 1
        number = isinstance(value, int | float) and not (
            math.isfinite(value) and abs(value) <= LARGEST
        )
        long = isinstance(value, str) and len(value) > LONGEST
        if number or long or depth > DEEPEST or count > MOST:
            what = (
                f"config.json holds a value out of all bounds: {key_path[:80]} = {str(value)[:40]}"
            )
            raise CheckpointMismatch(what, where=where, cure=CURE)
        pairs = (
            value.items()
            if isinstance(value, Mapping)
            else enumerate(value)
            if isinstance(value, list)
            else ()
        )
        left += [(f"{key_path}.{key}".lstrip("."), inner, depth + 1) for key, inner in pairs]


def _require_known(config: Mapping[str, Any], part: str, where: str) -> None:
    """Require a release that this project names, or that is in the user's download cache."""
    for key, value in config.items():
        if (
            not isinstance(value, str)
            or Path(value).expanduser().exists()
            or not hub.REPOSITORY.fullmatch(value)
        ):
            continue
        if value not in REPOSITORIES and not _fetched(value):
            what = f"this checkpoint would fetch {value} as its {part} ({key})"
            cure = "fetch it yourself, if you trust it; then draw again"
            raise ConfigError(what, where=where, cure=cure)


def _fetched(repository: str) -> bool:
    from huggingface_hub.constants import HF_HUB_CACHE

    return os.path.isdir(
        os.path.join(HF_HUB_CACHE, f"models--{repository.replace('/', '--')}", "snapshots")
    )


@contextmanager
def _no_more_tensors_than(most: int) -> Generator[None]:
    """Inside, constructing a network with more parameters than the file has tensors raises."""
    registered = 0

    def count(*_: Any) -> None:
        nonlocal registered
        registered += 1
        if registered > 2 * most + 64:  # some are created, then replaced
            raise ValueError(f"it describes more tensors than the {most:,} of the file")

    parameters = hooks.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        parameters.remove()


def _require_memory(skeleton: nn.Module, where: str) -> None:
    """Require memory for the weights twice: as they are read, and in the network."""
    needed = 2 * sum(tensor.nbytes for tensor in skeleton.state_dict().values())
    free = available_bytes("cpu")
    if needed > free:
        what = (
            f"the network needs {needed / 2**30:.1f} GiB to be read, and {free / 2**30:.1f} GiB "
            "are free"
        )
        raise MemoryPlanError(what, where=where, cure="a machine with more memory")
