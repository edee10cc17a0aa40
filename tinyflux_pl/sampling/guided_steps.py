"""The steps and the network that guidance needs, judged before any weight is read."""

from __future__ import annotations

from collections.abc import Sequence

from tinyflux_pl.core.block_stack import require_blocks
from tinyflux_pl.core.protocols import Denoiser, Path
from tinyflux_pl.diffusion.guidance import Guidance
from tinyflux_pl.diffusion.paths import data_share
from tinyflux_pl.sampling.loop import SamplerSettings, require_guidance_input, step_times

DATA = 1.0  # the level at which no network is asked


def require_supported(guidance: Guidance, denoiser: Denoiser) -> None:
    """Raise ConfigError for a guidance input or blocks to skip that a network does not have.

    The network may lie on the meta device.
    """
    require_guidance_input(guidance, denoiser)
    if guidance.skip_layers:
        require_blocks(denoiser.block_stack(), guidance.skip_layers, denoiser.name)


def evaluated_levels(settings: SamplerSettings, path: Path, tokens: int) -> list[float]:
    """Levels of noise (0) to data (1) at which the network is asked, for pictures of `tokens`."""
    times = step_times(settings, path, tokens)
    return [level for level in data_share(path, times).tolist() if level < DATA]


def reaches(interval: Sequence[float], levels: Sequence[float]) -> bool:
    """True if one of the levels lies inside the interval."""
    low, high = interval
    return any(low <= level <= high for level in levels)


def unguided(settings: SamplerSettings, path: Path, tokens: int) -> list[str]:
    """A line for each interval of the guidance into which no step falls; [] where all are used."""
    guidance = settings.guidance
    effects = {}
    if guidance.scale != 1 and guidance.interval != (0, 1):
        effects["interval"] = f"guidance.scale={guidance.scale:g} changes nothing"
    if guidance.skip_layers:
        effects["skip_interval"] = "no block is skipped"
    lines = []
    for name, effect in effects.items():
        low, high = getattr(guidance, name)
        levels = evaluated_levels(settings, path, tokens)
        if not reaches((low, high), levels):
            steps = ", ".join(f"{level:.3g}" for level in levels[:4])
            more = ", ..." if len(levels) > 4 else ""
            lines.append(
                f"no step lies inside guidance.{name}=[{low:g},{high:g}], so {effect}: "
                f"the steps lie at {steps}{more} of 0 (noise) to 1 (data)"
            )
    return lines
