"""Sampler and guidance of a drawing, judged on an outline before the weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyflux_pl.app import report, unread_settings
from tinyflux_pl.config.schema import Generate
from tinyflux_pl.core.errors import ConfigError

if TYPE_CHECKING:
    from tinyflux_pl.checkpoints.directory import Checkpoint
    from tinyflux_pl.sampling.loop import SamplerSettings


def check_checkpoint(checkpoint: Checkpoint, config: Generate) -> None:
    """Judge the keys of a line against the settings and the network that config.json describes.

    Raises as `check` does, and as described_parts.parts.
    """
    from tinyflux_pl.inference import described_parts
    from tinyflux_pl.inference.pipeline import adjusted_settings

    parts = described_parts.parts(checkpoint, outline=True)
    settings = adjusted_settings(parts.settings, config.sampler, config.guidance)
    check(config, settings, parts.denoiser, parts.codec, parts.image_size)


def check(
    config: Generate, settings: SamplerSettings, denoiser: Any, codec: Any, size: tuple[int, int]
) -> None:
    """Raise ConfigError for what these settings do not read, or the network cannot follow.

    `size` (height, width) is drawn unless the configuration has another. An interval of guidance
    without a step is named, and refused beside a negative prompt. Of a picture that is drawn again
    nothing is judged: it was drawn.
    """
    from tinyflux_pl.sampling import guided_steps
    from tinyflux_pl.sampling.images import require_guided

    if config.from_image is not None:
        return
    require_guided(config.negative_prompt, settings.guidance)
    unread_settings.check_sampling(config, settings)
    guided_steps.require_followed(settings.guidance, denoiser)
    cell = codec.latent_spec.downsample * denoiser.patch_size
    height, width = config.height or size[0], config.width or size[1]
    tokens = (height // cell) * (width // cell)
    lines = guided_steps.unguided(settings, denoiser.path, tokens)
    if config.negative_prompt is not None:
        levels = guided_steps.evaluated_levels(settings, denoiser.path, tokens)
        if not guided_steps.reaches(settings.guidance.interval, levels):
            cure = "a wider guidance.interval, more sampler.steps, or leave negative_prompt= out"
            raise ConfigError(lines[0], where="negative_prompt", cure=cure)
    report.notes(lines)
