"""What drawing needs in memory, from structures alone: weights are not read, and need not be there."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tinyflux_pl.app import release_settings
from tinyflux_pl.app.planned_config import weightless
from tinyflux_pl.config.build import build
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine.memory_plan import MemoryPlan

PLANS = ("check", "only", "skip")
PUBLISHED_SIZE = 512  # pixels along a side, where neither the model nor the user says


@dataclass(frozen=True)
class PlannedPart:
    """One network: what it is called, its parameters, the type and the bytes of its weights."""

    name: str
    parameters: int
    dtype: str
    bytes: int


@dataclass(frozen=True)
class GenerationPlan:
    """The parts, and the stages of drawing `images` at once, each of `size` (height, width) pixels."""

    parts: list[PlannedPart]
    memory: MemoryPlan
    images: int
    size: tuple[int, int]
    host: bool
    taking_turns: bool | None  # whether the text encoders do; None where they cannot

    def require(self, available: int) -> None:
        """Raise MemoryPlanError where a stage needs more than `available` bytes."""
        worst = self.memory.worst(self.host)
        if worst.total - worst.rows.get("activations", 0) <= available:
            fewer = "fewer images at once (batch_size=1), or " if self.images > 1 else ""
            cure = f"{fewer}smaller ones (height=, width=)"
        elif self.taking_turns is False:
            cure = "text.sequential=true reads one text encoder at a time; else a smaller model, or more memory"
        else:
            cure = "the weights alone are too many: a smaller model, or a device with more memory"
        where = "hardware.accelerator=" + ("cpu" if self.host else "gpu")
        self.memory.require(available, host=self.host, where=where, cure=f"{cure} (plan=skip tries it all the same)")

    def fitting(self, more: GenerationPlan, available: int) -> int:
        """The most images, of those `more` plans for, that `available` bytes hold; each adds as much as the last."""
        most = more.images
        for one, all_ in zip(self.memory.stages, more.memory.stages, strict=True):
            if one.host == self.host and all_.total > available:
                each = (all_.total - one.total) / (more.images - self.images)
                most = min(most, self.images + int((available - one.total) / each))
        return most


def generation_plan(config: dict[str, Any], images: int | None = None) -> GenerationPlan:
    """Denoiser, codec and text encoders as skeletons; one guided step and one decoding counted on the meta device.

    `images` are drawn at once; None: as many as the configuration asks for.
    """
    if not config["model"]:
        raise ConfigError("no model to plan for", where="plan", cure="name one: model=flux1_dev")
    config = weightless(config)
    config = release_settings.followed(config)
    codec, text, path = (build(config[name], name) for name in ("codec", "text", "path"))
    denoiser, size = _skeleton(config, codec, text, path)
    return plan_of(denoiser, codec, text, size, config, images)


def plan_of(
    denoiser: Any, codec: Any, text: Any, size: tuple[int, int], config: dict[str, Any], images: int | None = None
) -> GenerationPlan:
    """The plan of a denoiser on the meta device, drawing `size` (height, width) with a codec and a text encoder."""
    from tinyflux_pl.core.precision import check_dtype
    from tinyflux_pl.engine import live_bytes, memory_plan

    found = [("denoiser", denoiser, str(next(denoiser.parameters()).dtype).removeprefix("torch."))]
    autoencoder = codec.skeleton()
    if autoencoder is not None:
        found.append(("codec", autoencoder, codec.dtype))
    found += [(f"text: {name}", net, text.dtype) for name, net in text.skeletons().items()]
    parts = []
    for name, net, dtype in found:
        count = sum(parameter.numel() for parameter in net.parameters())
        parts.append(PlannedPart(name, count, dtype, count * check_dtype(dtype, name).itemsize))
    turns = text.sequential
    images, host = images or at_once(config), config["hardware"]["accelerator"] == "cpu"
    latents = _latents(codec, images, size)
    codec.to("meta").decode(latents[:1, :, :2, :2])  # which makes its skeleton: that is no activation
    weights = {part.name: part.bytes for part in parts}
    stages = memory_plan.generation(
        weights["denoiser"],
        {name.removeprefix("text: "): n for name, n in weights.items() if name.startswith("text: ")},
        weights.get("codec", 0),
        drawing=live_bytes.activations(lambda: _step(denoiser, text.text_spec, latents, config)),
        decoding=live_bytes.activations(lambda: codec.decode(latents)),
        sequential=turns is True,
        host=host,
    )
    return GenerationPlan(parts, stages, images, size, host, turns)


def _skeleton(config: dict[str, Any], codec: Any, text: Any, path: Any) -> tuple[Any, tuple[int, int]]:
    """The denoiser on the meta device, and the (height, width) to draw, which it has places for."""
    import torch

    from tinyflux_pl.inference.picture_size import check_size

    with torch.device("meta"):
        made = build(
            config["model"], "model", latent_spec=codec.latent_spec, text_spec=text.text_spec, path=path
        ).eval()
    side = made.image_size or PUBLISHED_SIZE
    size = (config["height"] or side, config["width"] or side)
    check_size(*size, codec.latent_spec.downsample * made.patch_size)
    made.require_size(*size)
    return made, size


def check_size_of(config: dict[str, Any]) -> None:
    """Judge the size to draw by the network's structure alone; warn of one that is far from training's.

    Raises ConfigError for sides that are no whole tokens, or longer than the network has places for.
    """
    from tinyflux_pl.inference.picture_size import warn_if_far

    denoiser, size = _skeleton(config, *(build(config[name], name) for name in ("codec", "text", "path")))
    if denoiser.image_size:
        warn_if_far(*size, (denoiser.image_size, denoiser.image_size))


def only(config: dict[str, Any]) -> bool:
    """Whether the plan is all that is asked for."""
    if config["plan"] not in PLANS:
        raise ConfigError(f"plan={config['plan']!r}", where="plan", cure=f"one of {', '.join(PLANS)}")
    return config["plan"] == "only"


def batch_size(config: dict[str, Any], planned: Callable[[int], GenerationPlan] | None = None) -> int:
    """Images to draw at once: as asked, or as many as fit; MemoryPlanError, before any weight is read, if none does.

    `planned` is the plan of a number of images; None: of the configuration's own parts.
    """
    from tinyflux_pl.engine.peak_memory import available_bytes
    from tinyflux_pl.inference.pipeline import device_of

    planned = planned or functools.partial(generation_plan, config)
    wanted = at_once(config)
    if config["plan"] != "check":
        return wanted
    free, plan = available_bytes(device_of(config["hardware"]["accelerator"])), planned(wanted)
    if plan.memory.worst(plan.host).total <= free:
        return wanted
    if config["batch_size"] is not None or wanted == 1:
        plan.require(free)
    one = planned(1)
    one.require(free)
    found = one.fitting(plan, free)
    print(f"{found} of {wanted} images are drawn at once: more do not fit into memory")
    return found


def at_once(config: dict[str, Any]) -> int:
    """Images in one batch: `batch_size`, or all that are asked for, up to a sampler's own bound."""
    from tinyflux_pl.inference.pipeline import read_prompts
    from tinyflux_pl.sampling.images import ImageSampler

    if config["condition"] is not None:  # a file, which says how many there are once it is read
        return config["batch_size"] or ImageSampler.max_batch
    asked = config["prompt"] is not None or config["prompt_file"] is not None
    prompts = len(read_prompts(config["prompt"], config["prompt_file"])) if asked else 1
    return max(1, min(config["n"] * prompts, config["batch_size"] or ImageSampler.max_batch))


def _latents(codec: Any, images: int, size: tuple[int, int]) -> Any:
    import torch

    spec = codec.latent_spec
    return torch.empty(images, spec.channels, size[0] // spec.downsample, size[1] // spec.downsample, device="meta")


def _step(denoiser: Any, text_spec: Any, latents: Any, config: Mapping[str, Any]) -> Any:
    """One evaluation as a sampler makes it: both rows of a guided image at once, each picture beside it."""
    import torch

    from tinyflux_pl.core.types import Conditioning, TextEmbeddings
    from tinyflux_pl.diffusion.guidance import Guidance

    told = {key: value for key, value in (config["guidance"] or {}).items() if value is not None}
    rows = len(latents) * (2 if replace(Guidance(), **told).scale != 1 else 1)
    x = latents.new_empty(rows, *latents.shape[1:])
    shape = (rows, text_spec.length)
    text = TextEmbeddings(
        x.new_empty(*shape, text_spec.width), x.new_empty(shape, dtype=torch.bool), x.new_empty(rows, text_spec.pooled)
    )
    files = [given] if isinstance(given := config["reference"] or [], str) else given
    beside = [_beside(denoiser, x, file) for file in files]
    holes = denoiser.inpaint_channels
    hole = x.new_empty(rows, holes, *x.shape[2:]) if holes else None
    cond = Conditioning(text, references=tuple(beside), inpaint=hole)
    if text_spec.ids:
        tokens = x.shape[2] * x.shape[3]
        places = x.new_empty(rows, tokens, text_spec.ids), x.new_empty(rows, tokens, dtype=torch.bool)
        cond = replace(cond, target_ids=places[0], target_mask=places[1])
    return denoiser(x, x.new_empty(rows), cond)


def _beside(denoiser: Any, x: Any, file: str) -> Any:
    """Latents of a reference in the size that the network's rule brings it to; of a file that is not there, x's."""
    from pathlib import Path

    from tinyflux_pl.data.images.decode import inspect
    from tinyflux_pl.data.images.resize_rules import AREA

    cell, path = denoiser.latent_spec.downsample, Path(file).expanduser()
    if denoiser.reference_size in ("preferred", "area"):  # at the most
        return x.new_empty(*x.shape[:2], math.isqrt(AREA) // cell, math.isqrt(AREA) // cell)
    if not path.is_file():
        return x
    tokens = cell * denoiser.patch_size
    width, height = (max(side // tokens, 1) * denoiser.patch_size for side in inspect(path))
    return x.new_empty(*x.shape[:2], height, width)
