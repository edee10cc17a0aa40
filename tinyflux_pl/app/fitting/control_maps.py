"""Consistency of a run's data and network with regard to the maps of a control branch."""

from __future__ import annotations

from typing import Any

from tinyflux_pl.config import allowlist
from tinyflux_pl.config.schema import DataJob
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.hint_forms import LATENTS


def hint_form(config: DataJob) -> str:
    """The form in which the network of `model` reads maps; LATENTS if the data has no maps."""
    from tinyflux_pl.denoisers.registry import class_of_builder

    if config.data.hint is None:
        return LATENTS
    return class_of_builder(allowlist.resolve(config.model["_target_"])).hint_form


def check(config: DataJob, network: Any) -> None:
    """Raise ConfigError for a control branch without maps, or maps without a control branch."""
    reads = network.hint_shape(1, 1) is not None
    if reads and config.data.hint is None:
        cure = "data.hint=canny, or data.hint=FOLDER of maps with the pictures' names"
        raise ConfigError("a control branch learns from maps", where="data.hint", cure=cure)
    if not reads and config.data.hint is not None:
        cure = "method=controlnet, or data.hint=null"
        raise ConfigError("nothing reads the maps", where="data.hint", cure=cure)
