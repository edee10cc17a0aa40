"""The sampler, guidance and unconditional text of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyflux_pl.app import unread_settings
from tinyflux_pl.config.schema import DataJob, Train

if TYPE_CHECKING:
    from tinyflux_pl.core.types import TextEmbeddings
    from tinyflux_pl.sampling.loop import SamplerSettings


def settings(config: DataJob) -> SamplerSettings:
    """The settings of the groups `sampler` and `guidance`; ConfigError if they do not agree."""
    from tinyflux_pl.sampling.images import settings_of

    return settings_of({**config.sampler, "guidance": config.guidance})


def check(config: Train, network: Any) -> None:
    """Raise ConfigError for keys of sampler and guidance that nothing reads or the network lacks.

    The network may lie on the meta device.
    """
    from tinyflux_pl.sampling.guided_steps import require_supported

    chosen = settings(config)
    unread_settings.check_sampling(config, chosen)
    require_supported(chosen.guidance, network)


def unguided(config: DataJob, network: Any, downsample: int, size: tuple[int, int]) -> list[str]:
    """A line for each interval of the guidance without a step, for previews of `size` pixels."""
    from tinyflux_pl.sampling import guided_steps

    height, width = (side // downsample // network.patch_size for side in size)
    return guided_steps.unguided(settings(config), network.path, height * width)


def null_text(config: DataJob, text: Any, reads: tuple[str, ...]) -> TextEmbeddings:
    """The unconditional text of training.

    That is `guidance.negative` of a method that reads the guidance, else the encoder's own.
    """
    negative = config.guidance.get("negative") if "guidance" in reads else None
    return text.null() if negative is None else text.encode([negative])
