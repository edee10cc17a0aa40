"""The contract of a training method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Method(Protocol):
    """Decides what of a denoiser is trained; full, lora, ... (methods.registry).

    `needs_base`: it trains an addition to weights that stay as they are, so a run must be given
    those (init= or model.weights=), and its checkpoints refer to them instead of holding them.
    `config()` is plain data from which `methods.registry.build_method(name, config)` rebuilds the
    method.
    """

    name: str
    needs_base: bool

    def prepare(self, denoiser: nn.Module) -> None:
        """Mark the parameters that train, and add to the network, in place; also on the meta
        device.

        ConfigError for a network that the method does not fit.
        """
        ...

    def saved(self, denoiser: nn.Module) -> frozenset[str]:
        """Names of the state dict's tensors that a checkpoint of a prepared denoiser holds."""
        ...

    def rates(self, denoiser: nn.Module) -> Mapping[str, float]:
        """Factors on the learning rate by parameter name, where they are not 1."""
        ...

    def config(self) -> dict[str, Any]: ...
