"""Full training: every parameter of the network that the network itself does not freeze."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


class Full:
    """The denoiser as it was built; checkpoints hold all of it (methods.method.Method)."""

    name = "full"
    needs_base = False

    def prepare(self, denoiser: nn.Module) -> None:
        """Leave the network as it is."""

    def saved(self, denoiser: nn.Module) -> frozenset[str]:
        """All names of the state dict."""
        return frozenset(denoiser.state_dict())

    def rates(self, denoiser: nn.Module) -> Mapping[str, float]:
        """No factors: one rate for all."""
        return {}

    def config(self) -> dict[str, Any]:
        """Nothing to choose."""
        return {}
