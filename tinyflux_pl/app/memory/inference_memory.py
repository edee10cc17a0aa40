"""The memory that sampling needs, computed from structures: weights are neither read nor needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tinyflux_pl.app import hardware
from tinyflux_pl.app.drawing import packed_file
from tinyflux_pl.app.memory import planned_text
from tinyflux_pl.app.memory.planned_adapters import planned_adapters
from tinyflux_pl.app.memory.planned_parts import (
    PlannedPart,
    planned_parts,
    without_unneeded_weights,
)
from tinyflux_pl.app.memory.planned_step import step
from tinyflux_pl.app.released import release_settings
from tinyflux_pl.config.build import build
from tinyflux_pl.config.schema import Generate
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine.memory_plan import MemoryPlan
from tinyflux_pl.engine.placement import RESIDENT, Placement

PUBLISHED_SIZE = 512  # pixels along a side, where neither the model nor the user sets it


@dataclass(frozen=True)
class GenerationPlan:
    """The parts and stages of drawing `images` at once, each of `size` (height, width) pixels."""

    parts: list[PlannedPart]
    memory: MemoryPlan
    images: int
    size: tuple[int, int]
    host: bool
    sequential_text: bool | None  # text encoders are read one at a time; None: they cannot be
    blocks: Mapping[str, int]  # of each network, by part
    placement: Placement = RESIDENT
    budget: int | None = None

    def require(self, available: int) -> None:
        """Raise MemoryPlanError if a stage needs more than `available` bytes."""
        worst = self.memory.worst(self.host)
        # those of text do not shrink with the images
        shrinking = 0 if worst.name == "text" else worst.rows.get("activations", 0)
        if worst.total - shrinking <= available:
            fewer = "fewer images at once (batch_size=1), or " if self.images > 1 else ""
            cure = f"{fewer}smaller ones (height=, width=)"
        elif self.sequential_text is False:
            cure = "text.sequential=true reads one text encoder at a time; "
            cure += "else a smaller model, or more memory"
        else:
            cure = "the weights alone exceed it: a smaller model, or a device with more memory"
        self.memory.require(
            available,
            host=self.host,
            where=f"hardware.accelerator={'cpu' if self.host else 'gpu'}",
            cure=f"{cure} (plan=skip tries it all the same)",
        )

    def max_images(self, larger: GenerationPlan, available: int) -> int:
        """Largest batch up to `larger.images` in `available` bytes, assuming linear growth."""
        most = larger.images
        for one, many in zip(self.memory.stages, larger.memory.stages, strict=True):
            if one.host == self.host and many.total > available:
                each = (many.total - one.total) / (larger.images - self.images)
                most = min(most, self.images + int((available - one.total) / each))
        return most


def plan(config: Generate, images: int | None = None) -> GenerationPlan:
    """The plan of `checkpoint`, or without one of `model`, for `images` at once.

    `images=None`: as many as the configuration asks for.
    """
    from tinyflux_pl.inference.open_checkpoint import open_checkpoint

    if config.checkpoint is not None:
        return checkpoint_plan(open_checkpoint(config.checkpoint), config, images)
    if not config.model:
        raise ConfigError("no model to plan for", where="plan", cure="name one: model=flux1_dev")
    parts = ("codec", "text", *(() if "weights" in config.model else ("path",)))
    if missing := [name for name in parts if not getattr(config, name)]:  # a release has its path
        keys = " ".join(f"{name}=" for name in missing)
        cure = f"a release (model=flux1_dev), or checkpoint=RUN; of your own {keys} too"
        raise ConfigError(f"no {', '.join(missing)} to plan with", where=missing[0], cure=cure)
    config = packed_file.resolve_packed(
        release_settings.with_release_settings(without_unneeded_weights(config))
    )
    denoiser, codec, text, size = outline(config)
    return plan_of(denoiser, codec, text, size, config, images)


def checkpoint_plan(checkpoint: Any, config: Generate, images: int | None = None) -> GenerationPlan:
    """The plan of a checkpoint's parts; size and guidance default to the checkpoint's own.

    Raises as described_parts.parts does, and ConfigError for a size it cannot draw.
    """
    from tinyflux_pl.inference import described_parts
    from tinyflux_pl.inference.picture_size import check_size

    parts = described_parts.parts(checkpoint, outline=True)
    denoiser: Any = parts.denoiser
    size = (config.height or parts.image_size[0], config.width or parts.image_size[1])
    check_size(*size, parts.codec.latent_spec.downsample * denoiser.patch_size)
    denoiser.require_size(*size)
    chosen = config.guidance.get("scale")
    scale = parts.settings.guidance.scale if chosen is None else chosen
    config = config.replace(guidance={"scale": scale})
    with described_parts.explained(str(checkpoint.path)):
        return plan_of(denoiser, parts.codec, parts.text, size, config, images)


def plan_of(
    denoiser: Any,
    codec: Any,
    text: Any,
    size: tuple[int, int],
    config: Generate,
    images: int | None = None,
) -> GenerationPlan:
    """The plan of a denoiser on the meta device that draws `size` (height, width) pixels."""
    import torch

    from tinyflux_pl.core.precision import WEIGHTS
    from tinyflux_pl.engine import placement as placements
    from tinyflux_pl.engine.activations import activations
    from tinyflux_pl.engine.block_sizes import blocks_of, sizes_of

    images, host = images or requested(config), config.hardware.accelerator == "cpu"
    adapters, encoders = planned_adapters(config.lora), text.skeletons()
    parts = [*planned_parts(denoiser, codec, text, encoders, config.engine.stored), *adapters]
    weights = {part.name: part.bytes for part in parts}
    spec = codec.latent_spec
    shape = (images, spec.channels, *(side // spec.downsample for side in size))
    latents = torch.empty(shape, device="meta")
    codec.to("meta").decode(latents[:1, :, :2, :2])  # makes its skeleton: no activation
    blocks = [block.module for block in denoiser.block_stack()]
    added = sum(part.bytes for part in adapters)
    needs = placements.Needs(
        sizes_of(denoiser, blocks).plus(added),
        {
            name: sizes_of(network, blocks_of(network), WEIGHTS[text.dtype].itemsize)
            for name, network in encoders.items()
        },
        text.sequential is True,
        weights.get("codec", 0),
        drawing=activations(lambda: step(denoiser, text.text_spec, latents, config), denoiser),
        decoding=activations(lambda: codec.decode(latents)),
        encoding=planned_text.encoding(text, encoders, config),
        context=hardware.context_bytes(config.hardware),
    )
    limit = config.engine.budget
    budget = None if limit is None else placements.parsed_bytes(str(limit))
    placement = placements.chosen(config.engine.chosen, needs, budget, host=host)
    stages = placements.planned(placement, needs, host=host)
    numbers = {"denoiser": len(blocks)}
    numbers |= {f"text: {name}": len(sizes.blocks) for name, sizes in needs.text.items()}
    sequential = text.sequential
    return GenerationPlan(parts, stages, images, size, host, sequential, numbers, placement, budget)


def outline(config: Generate) -> tuple[Any, Any, Any, tuple[int, int]]:
    """The denoiser on the meta device, codec, text encoder, and the (height, width) to draw.

    Raises ConfigError for sides that are no whole tokens, or exceed the network's positions.
    """
    import torch

    from tinyflux_pl.inference.picture_size import check_size

    codec, text, path = (build(getattr(config, k), k) for k in ("codec", "text", "path"))
    specs = {"latent_spec": codec.latent_spec, "text_spec": text.text_spec}
    with torch.device("meta"):
        denoiser = build(config.model, "model", **specs, path=path).eval()
    side = denoiser.image_size or PUBLISHED_SIZE
    size = (config.height or side, config.width or side)
    check_size(*size, codec.latent_spec.downsample * denoiser.patch_size)
    denoiser.require_size(*size)
    return denoiser, codec, text, size


def check_size_of(config: Generate) -> None:
    """Check the size to draw against the network's structure; warn if far from training's."""
    from tinyflux_pl.inference.picture_size import warn_if_far

    denoiser, _, _, size = outline(config)
    if denoiser.image_size:
        warn_if_far(*size, (denoiser.image_size, denoiser.image_size))


def batch_size(config: Generate, plan_images: Callable[[int], GenerationPlan] | None = None) -> int:
    """Images to draw at once: all that were requested, or as many as fit.

    `plan_images` plans a number of images; None: of the configuration's own parts. Raises
    MemoryPlanError, before any weight is read, if not even one fits.
    """
    from tinyflux_pl.engine.peak_memory import available_bytes
    from tinyflux_pl.inference.pipeline import device_of

    plan_images = plan_images or functools.partial(plan, config)
    count = requested(config)
    if config.plan != "check":
        return count
    larger = plan_images(count)
    free = larger.budget
    if free is None:  # of which the context, that the plan counts, is gone already
        free = available_bytes(device_of(config.hardware.accelerator))
        free += hardware.context_bytes(config.hardware)
    if larger.memory.worst(larger.host).total <= free:
        return count
    if config.batch_size is not None or count == 1:
        larger.require(free)
    one = plan_images(1)
    one.require(free)
    fitting = one.max_images(larger, free)
    print(f"{fitting} of {count} images are drawn at once: more do not fit into memory")
    return fitting


def requested(config: Generate) -> int:
    """Images in one batch: `batch_size`, or all of them up to the sampler's bound."""
    from tinyflux_pl.inference.prompts import read_prompts
    from tinyflux_pl.sampling.images import ImageSampler

    bound = config.batch_size or ImageSampler.max_batch
    if config.condition is not None:  # the file, read later, has the number
        return bound
    has_prompts = config.prompt is not None or config.prompt_file is not None
    prompts = len(read_prompts(config.prompt, config.prompt_file)) if has_prompts else 1
    return max(1, min(config.n * prompts, bound))
