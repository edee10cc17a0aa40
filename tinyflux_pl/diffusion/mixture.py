"""The base class of paths: x_t = alpha(t) data + sigma(t) noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError

SMALLEST = 1e-12  # alpha and sigma inside a logarithm; |log-SNR| stays below 55.3


def require_fp32_time(t: Tensor) -> Tensor:
    """Return t; ConfigError in half precision."""
    if t.dtype not in (torch.float32, torch.float64):
        raise ConfigError(
            f"time in {t.dtype}",
            where="diffusion.paths",
            cure="keep t in fp32 until the network's own boundary",
        )
    return t


def expand_like(
    coefficient: Float[Tensor, " b"], like: Float[Tensor, "b ..."]
) -> Float[Tensor, "b ..."]:
    """A per-sample coefficient shaped to broadcast over the trailing dimensions of `like`."""
    return coefficient.reshape(-1, *(1,) * (like.ndim - 1))


@dataclass(frozen=True)
class Mixture(ABC):
    """A path by its alpha and sigma and their rates."""

    @abstractmethod
    def alpha(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Coefficient of the data."""

    @abstractmethod
    def sigma(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Coefficient of the noise."""

    @abstractmethod
    def alpha_rate(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """d alpha / dt."""

    @abstractmethod
    def sigma_rate(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """d sigma / dt."""

    def interpolate(
        self, data: Float[Tensor, "b ..."], noise: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
    ) -> Float[Tensor, "b ..."]:
        """x_t = alpha(t) data + sigma(t) noise."""
        return expand_like(self.alpha(t), data) * data + expand_like(self.sigma(t), noise) * noise

    def velocity(
        self, data: Float[Tensor, "b ..."], noise: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
    ) -> Float[Tensor, "b ..."]:
        """dx_t/dt = alpha'(t) data + sigma'(t) noise."""
        return (
            expand_like(self.alpha_rate(t), data) * data
            + expand_like(self.sigma_rate(t), noise) * noise
        )

    def config(self) -> dict[str, Any]:
        """Plain data from which `build_path(self.name, ...)` rebuilds the path."""
        return asdict(self)
