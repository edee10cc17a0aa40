"""Pipelines from a configuration: of a checkpoint or of published weights."""

from __future__ import annotations

import functools
from typing import Any

from tinyflux_pl.app import unread_settings
from tinyflux_pl.app.drawing import (
    adapter_choice,
    drawing_cache,
    embedding_choice,
    packed_file,
    picture_inputs,
    planned_inputs,
    staging,
)
from tinyflux_pl.app.hardware import require_attention_kernel
from tinyflux_pl.app.memory import inference_memory
from tinyflux_pl.app.released import release_settings, simulation
from tinyflux_pl.app.reporting import report, tables
from tinyflux_pl.checkpoints import reference_count
from tinyflux_pl.config import signatures
from tinyflux_pl.config.build import build
from tinyflux_pl.config.recorded_picture import recordable
from tinyflux_pl.config.schema import Generate
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine.placement import Placement


def pipeline(config: Generate) -> Any:
    """The pipeline of `checkpoint`, or of `model` with its published weights, on its device."""
    from tinyflux_pl.inference import distilled_settings, emulated_numbers
    from tinyflux_pl.inference.adapters import with_adapters
    from tinyflux_pl.inference.embeddings import with_embeddings
    from tinyflux_pl.inference.pipeline import device_of

    unread_settings.check_drawing(config)
    config = packed_file.resolve_packed(release_settings.with_release_settings(config))
    device = device_of(config.hardware.accelerator)  # raises for a missing GPU
    if config.checkpoint is None:
        compare_references(config, None if config.release is None else config.release.references)
    if config.simulate:
        built = simulation.simulated(config)
    else:
        built = _of_checkpoint(config) if config.checkpoint is not None else _of_model(config)
    built = with_adapters(built, adapter_choice.parse_adapters(config.lora))
    built = with_embeddings(built, embedding_choice.parse_embeddings(config.embedding))
    command = _recorded(config)
    built = built.with_metadata(command=command) if command else built
    built = built.adjusted(config.height, config.width, config.sampler, config.guidance)
    if config.simulate:
        planned_inputs.check(config, built)
    report.notes(distilled_settings.notes(built))
    if config.checkpoint is None:  # which fixes its own dtype
        report.notes(emulated_numbers.notes(built.denoiser, device))
    built = picture_inputs.with_pictures(built, config)
    built = drawing_cache.with_cache(built, config)
    built = staging.with_stored_prompts(built, config)
    built = staging.with_packed_weights(built, config)
    placement = staging.placement_of(config)
    require_resident_branch(config, placement)
    return built.on(config.hardware.accelerator, config.hardware.precision, placement)


def _recorded(config: Generate) -> list[str]:
    """The words of the command that a picture's file repeats; a calibration's weights are plain."""
    lines = recordable(config.overrides)
    packed = config.engine.stored is not None
    return [line for line in lines if packed or not line.startswith("engine.precision=")]


def require_resident_branch(config: Generate, placement: Placement) -> None:
    """Raise ConfigError for block offloading with a control branch, which reads all blocks."""
    if config.control is not None and placement.denoiser == "blocks":
        raise ConfigError(
            "this budget needs block offloading, which does not work with a control branch",
            where="engine.budget",
            cure="engine.placement=sequential, a larger engine.budget, or engine.precision=int8",
        )


def compare_references(config: Generate, seen: int | None) -> None:
    """Refuse references that the weights were not trained on; warn of more than they were.

    `seen` is the count of the weights without the adapters of `lora`.
    """
    from tinyflux_pl.inference import seen_references

    if not config.references:
        return
    count = seen_references.with_adapters(seen, adapter_choice.parse_adapters(config.lora))
    if config.image is None and config.mask is None:  # which references do not go with
        seen_references.require_some(count)
    if (line := seen_references.excess(len(config.references), count)) is not None:
        tables.line(f"warning: {line}")


def _of_checkpoint(config: Generate) -> Any:
    from tinyflux_pl.inference.open_checkpoint import open_checkpoint
    from tinyflux_pl.inference.pipeline import Pipeline

    described = ("model", "codec", "text", "path")
    chosen = [name for name in described if getattr(config, name)]
    if chosen:
        raise ConfigError(
            f"a checkpoint has its own {', '.join(chosen)}",
            where="generate",
            cure=f"leave {', '.join(f'{name}=' for name in chosen)} out",
        )
    checkpoint = open_checkpoint(config.checkpoint)
    compare_references(config, reference_count.recorded(checkpoint.config))
    if config.base is not None and "base" not in checkpoint.config:
        cure = "leave base= out"
        raise ConfigError("the checkpoint contains its complete network", where="base", cure=cure)
    planned_inputs.check_checkpoint(checkpoint, config)
    plan_images = functools.partial(inference_memory.checkpoint_plan, checkpoint, config)
    images = inference_memory.batch_size(config, plan_images)
    built = Pipeline.from_checkpoint(checkpoint, config.weights, config.base)
    stored = checkpoint.config.get("base_precision")
    if stored is not None and config.engine.precision is None:
        what = f"trained beside a base in {stored} and drawn on the plain one"
        report.notes([f"{what}; engine.precision={stored} draws as it was trained"])
    return built.adjusted(batch_size=images)


def _of_model(config: Generate) -> Any:
    import torch

    from tinyflux_pl.core import rng
    from tinyflux_pl.diffusion.guidance import Guidance
    from tinyflux_pl.inference.pipeline import Pipeline, device_of
    from tinyflux_pl.sampling.loop import SamplerSettings

    model = config.model
    if config.base is not None:
        cure = "leave it out, or give checkpoint="
        raise ConfigError("base= belongs to an adapter's checkpoint", where="base", cure=cure)
    if not model.get("weights") and not model.get("random_weights"):
        raise ConfigError(
            "no weights to draw from",
            where="checkpoint",
            cure="give checkpoint=FOLDER, or model=NAME model.weights=FILE.safetensors (or a "
            "release's FOLDER)",
        )
    if model.get("inpaint") and not model.get("random_weights"):
        what = "no release has trained an inpainting input: its weights would be zeros"
        cure = "checkpoint=RUN of a run that trained it (data=pairs with masks), or leave it out"
        raise ConfigError(what, where="model.inpaint", cure=cure)
    require_attention_kernel(model, device_of(config.hardware.accelerator))
    chosen = {key: value for key, value in config.guidance.items() if value is not None}
    guidance = Guidance(**signatures.check(Guidance, chosen, "guidance"))
    chosen = {key: value for key, value in config.sampler.items() if value is not None}
    settings = SamplerSettings(**chosen, guidance=guidance)
    inference_memory.check_size_of(config)
    planned_inputs.check_release(config, settings)
    images = inference_memory.batch_size(config)
    codec, text, path = (build(getattr(config, k), k) for k in ("codec", "text", "path"))
    specs = {"latent_spec": codec.latent_spec, "text_spec": text.text_spec}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive(config.seed, "init"))  # for random weights
        denoiser = build(model, "model", **specs, path=path)
    side = denoiser.image_size or inference_memory.PUBLISHED_SIZE
    origin = {k: value for k, value in model.items() if k not in ("_target_", "structure")}
    parts = Pipeline.from_parts(denoiser, codec, text, (side, side), origin)
    return parts.adjusted(batch_size=images)
