"""The settings, pictures and files of a drawing, judged before the network's weights are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyflux_pl.app import unread_settings
from tinyflux_pl.app.drawing import adapter_choice, drawing_cache, embedding_choice, picture_inputs
from tinyflux_pl.app.memory import inference_memory
from tinyflux_pl.app.reporting import report
from tinyflux_pl.checkpoints import reference_count
from tinyflux_pl.config.schema import Generate
from tinyflux_pl.core.errors import ConfigError

if TYPE_CHECKING:
    from tinyflux_pl.checkpoints.directory import Checkpoint
    from tinyflux_pl.inference.pipeline import Pipeline
    from tinyflux_pl.sampling.loop import SamplerSettings


def check_checkpoint(checkpoint: Checkpoint, config: Generate) -> None:
    """Judge a line by what config.json describes; raises as `check` and described_parts.parts."""
    from tinyflux_pl.inference import described_parts

    parts = described_parts.parts(checkpoint, outline=True)
    seen = reference_count.recorded(checkpoint.config)
    outline = _outline(parts.denoiser, parts.codec, parts.text, parts.settings, parts.image_size)
    check(config, replace(outline, references=seen))


def check_release(config: Generate, settings: SamplerSettings) -> None:
    """Judge a line by the structure that `model` describes; raises as `check`."""
    denoiser, codec, text, size = inference_memory.outline(config)
    check(config, _outline(denoiser, codec, text, settings, size))


def check(config: Generate, pipeline: Pipeline) -> None:
    """Raise for settings, pictures and files that would be refused once the weights are there.

    The network may lie on the meta device. An interval of guidance without a step is named, and
    refused beside a negative prompt: ConfigError. Pictures raise as they do when they are read, an
    adapter, an embedding or a calibration that is not there CheckpointMismatch or ConfigError. Of a
    picture that is drawn again the settings are not judged: it was drawn.
    """
    from tinyflux_pl.inference import adapters, embeddings, seen_references
    from tinyflux_pl.inference.picture_size import check_size
    from tinyflux_pl.inference.pipeline import adjusted_settings
    from tinyflux_pl.sampling.loop import require_deterministic

    sampler = pipeline.sampler
    settings = adjusted_settings(sampler.settings, config.sampler, config.guidance)
    size = (config.height or sampler.image_size[0], config.width or sampler.image_size[1])
    check_size(*size, pipeline.cell)
    pipeline.denoiser.require_size(*size)
    pipeline = replace(pipeline, sampler=replace(sampler, settings=settings, image_size=size))
    if config.from_image is None:
        _check_sampling(config, pipeline)
    _check_condition(config, pipeline)
    for path, _ in adapter_choice.parse_adapters(config.lora):
        adapters.require_one(path)
    embeddings.with_embeddings(pipeline, embedding_choice.parse_embeddings(config.embedding))
    if config.references:
        seen = seen_references.with_adapters(
            pipeline.references, adapter_choice.parse_adapters(config.lora)
        )
        pipeline = replace(pipeline, references=seen)
    picture_inputs.with_pictures(pipeline, config)
    if config.mask is not None and not pipeline.denoiser.inpaint_channels:
        require_deterministic(settings)
    drawing_cache.check(config, pipeline.denoiser, settings.steps)
    file = config.engine.calibration
    if file is not None and not Path(file).expanduser().is_file():
        cure = f"make it: engine.calibrate={file}"
        raise ConfigError("no such calibration", where=f"engine.calibration={file}", cure=cure)


def _check_sampling(config: Generate, pipeline: Pipeline) -> None:
    from tinyflux_pl.sampling import guided_steps
    from tinyflux_pl.sampling.images import require_guided

    denoiser, settings = pipeline.denoiser, pipeline.sampler.settings
    require_guided(config.negative_prompt, settings.guidance)
    unread_settings.check_sampling(config, settings)
    guided_steps.require_supported(settings.guidance, denoiser)
    height, width = (side // pipeline.cell for side in pipeline.sampler.image_size)
    lines = guided_steps.unguided(settings, denoiser.path, height * width)
    if config.negative_prompt is not None:
        levels = guided_steps.evaluated_levels(settings, denoiser.path, height * width)
        if not guided_steps.reaches(settings.guidance.interval, levels):
            cure = "a wider guidance.interval, more sampler.steps, or leave negative_prompt= out"
            raise ConfigError(lines[0], where="negative_prompt", cure=cure)
    report.notes(lines)


def _check_condition(config: Generate, pipeline: Pipeline) -> None:
    """Raise for prompts where conditions are read, the reverse, and a file that does not fit."""
    from tinyflux_pl.inference.sequences import SequencePipeline

    argument = pipeline.sampler.text.condition_argument
    if config.condition is not None:
        SequencePipeline(pipeline).read(config.condition)
    elif argument is not None:
        cure = f"give a file of conditions: {argument}"
        raise ConfigError("this model takes sequences, not prompts", where="prompt", cure=cure)


def _outline(
    denoiser: Any, codec: Any, text: Any, settings: SamplerSettings, size: tuple[int, int]
) -> Pipeline:
    from tinyflux_pl.inference.pipeline import Pipeline
    from tinyflux_pl.sampling.images import ImageSampler

    return Pipeline(denoiser, ImageSampler(codec, text, settings, size), {})
