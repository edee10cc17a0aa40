"""The training techniques of a run, and their checks before its caches are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyflux_pl.config.build import build
from tinyflux_pl.core.errors import ConfigError

if TYPE_CHECKING:
    from tinyflux_pl.config.schema import DataJob
    from tinyflux_pl.core.protocols import Denoiser
    from tinyflux_pl.techniques.technique import Technique


def of_run(config: DataJob) -> dict[str, Technique]:
    """The techniques that technique= chose, by name."""
    return {name: build(node, f"technique.{name}") for name, node in config.technique.items()}


def check(config: DataJob, trains: str, network: Denoiser) -> None:
    """Raise ConfigError for a module, a network or hardware that a technique does not fit."""
    for name, technique in of_run(config).items():
        if trains != "denoiser":
            raise ConfigError(
                f"technique={name} changes the regression of a denoiser, and this is none",
                where="technique",
                cure="technique=none",
            )
        technique.check(network)
        for key in ("compile", "gradient_checkpointing"):
            if technique.reads_blocks and getattr(config.hardware, key):
                raise ConfigError(
                    f"technique={name} reads the blocks of a pass, which hardware.{key} hides",
                    where=f"hardware.{key}",
                    cure=f"hardware.{key}=false, or technique=none",
                )
