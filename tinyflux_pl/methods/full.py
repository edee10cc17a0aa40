"""Full training: every parameter of the network but those that are frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.nearest_name import did_you_mean
from tinyflux_pl.methods.base_precision import refuse
from tinyflux_pl.methods.method import Method


class Full(Method):
    """The denoiser as it was built; checkpoints hold all of it (methods.method.Method).

    `frozen` are names of parameters, or of the modules that hold them, whose weights stay.
    """

    name = "full"

    def __init__(self, frozen: Sequence[str] = (), base_precision: str | None = None) -> None:
        refuse(base_precision, self.name)
        self.frozen = tuple(frozen)

    def prepare(self, denoiser: nn.Module) -> None:
        """Freeze what is named; ConfigError for a name that no part has, or if nothing is left."""
        parameters = dict(denoiser.named_parameters())
        for name in self.frozen:
            inside = [key for key in parameters if f"{key}.".startswith(f"{name}.")]
            if not inside:
                modules = (key for key, _ in denoiser.named_modules() if key)
                raise ConfigError(
                    f"the network has no part {name!r}",
                    where="method.frozen",
                    cure=did_you_mean(name, modules, "a name such as autoencoder.encoder"),
                )
            for key in inside:
                parameters[key].requires_grad_(False)
        if self.frozen and not any(parameter.requires_grad for parameter in parameters.values()):
            raise ConfigError(
                "nothing is left to train", where="method.frozen", cure="freeze less of the network"
            )

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"frozen": list(self.frozen)}
