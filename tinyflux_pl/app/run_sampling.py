"""The sampler, guidance and unconditional text of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyflux_pl.config.schema import DataJob

if TYPE_CHECKING:
    from tinyflux_pl.core.types import TextEmbeddings
    from tinyflux_pl.sampling.loop import SamplerSettings


def settings(config: DataJob) -> SamplerSettings:
    """The settings of the groups `sampler` and `guidance`; ConfigError if they do not agree."""
    from tinyflux_pl.sampling.images import settings_of

    return settings_of({**config.sampler, "guidance": config.guidance})


def null_text(config: DataJob, text: Any, reads: tuple[str, ...]) -> TextEmbeddings:
    """The unconditional text of training.

    That is `guidance.negative` of a method that reads the guidance, else the encoder's own.
    """
    negative = config.guidance.get("negative") if "guidance" in reads else None
    return text.null() if negative is None else text.encode([negative])
