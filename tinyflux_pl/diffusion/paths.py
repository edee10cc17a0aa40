"""Paths from noise to data, x_t = alpha(t) data + sigma(t) noise. The owner of the clock.

No other file of the house writes `1 - t`: what depends on which end is noise asks here.
Times are fp32 (fp64 in tests); half precision is refused, since bf16 has 129 values in [0.5, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError

SMALLEST = 1e-12  # alpha and sigma inside a logarithm; |log-SNR| stays below 55.3
SCHEDULES = ("scaled_linear", "linear")


def _time(t: Tensor) -> Tensor:
    if t.dtype not in (torch.float32, torch.float64):
        raise ConfigError(
            f"time in {t.dtype}", where="diffusion.paths", cure="keep t in fp32 until the network's own boundary"
        )
    return t


def over(coefficient: Float[Tensor, " b"], like: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """A per-sample coefficient shaped to broadcast over the trailing dimensions of `like`."""
    return coefficient.reshape(-1, *(1,) * (like.ndim - 1))


@dataclass(frozen=True)
class _Mixture(ABC):
    """What every path does with its alpha and sigma."""

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
        return over(self.alpha(t), data) * data + over(self.sigma(t), noise) * noise

    def velocity(
        self, data: Float[Tensor, "b ..."], noise: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
    ) -> Float[Tensor, "b ..."]:
        """dx_t/dt = alpha'(t) data + sigma'(t) noise."""
        return over(self.alpha_rate(t), data) * data + over(self.sigma_rate(t), noise) * noise

    def config(self) -> dict[str, Any]:
        """Plain data from which `build_path(self.name, ...)` makes an equal path."""
        return asdict(self)


@dataclass(frozen=True)
class LinearPath(_Mixture):
    """Rectified flow. noise_at=0: t=0 noise, t=1 data (TinyFlux); noise_at=1: t=1 noise (FLUX, SD3).

    Liu et al. 2022 (2209.03003). The velocity is data - noise, or noise - data, at every t.
    """

    noise_at: int = 0
    name: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        if self.noise_at not in (0, 1):
            raise ConfigError(f"noise_at={self.noise_at!r}", where="LinearPath", cure="0 (TinyFlux) or 1 (FLUX)")

    @property
    def t_noise(self) -> float:
        """The time of pure noise."""
        return float(self.noise_at)

    @property
    def t_data(self) -> float:
        """The time of clean data."""
        return 1.0 - self.noise_at

    def alpha(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Coefficient of the data."""
        return _time(t) if self.noise_at == 0 else 1 - _time(t)

    def sigma(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Coefficient of the noise."""
        return 1 - _time(t) if self.noise_at == 0 else _time(t)

    def alpha_rate(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """d alpha / dt."""
        return torch.full_like(_time(t), self.t_data - self.t_noise)

    def sigma_rate(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """d sigma / dt."""
        return torch.full_like(_time(t), self.t_noise - self.t_data)

    def log_snr(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """2 log(alpha / sigma), finite at both ends."""
        return 2 * (self.alpha(t).clamp_min(SMALLEST).log() - self.sigma(t).clamp_min(SMALLEST).log())

    def time_of_log_snr(self, log_snr: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The inverse: alpha = sigmoid(log_snr / 2), since alpha + sigma = 1."""
        half = _time(log_snr) / 2
        return torch.sigmoid(half if self.noise_at == 0 else -half)


@dataclass(frozen=True)
class VPPath(_Mixture):
    """Variance preserving DDPM table read as a continuous path: t=0 data, t=1 noise.

    Integer timestep i is t = i / (steps - 1); between knots the log-SNR is linear in t, so that
    alpha = sqrt(sigmoid(log_snr)), sigma = sqrt(sigmoid(-log_snr)) and both rates are analytic.
    Ho et al. 2020 (2006.11239); zero terminal SNR: Lin et al. 2023 (2305.08891), algorithm 1.
    At t_data sigma is small but not zero (0.029 for Stable Diffusion's table).
    """

    schedule: str = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    steps: int = 1000
    zero_terminal_snr: bool = False
    name: ClassVar[str] = "vp"
    t_noise: ClassVar[float] = 1.0
    t_data: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ConfigError(
                f"unknown beta schedule {self.schedule!r}", where="VPPath.schedule", cure=f"one of {SCHEDULES}"
            )
        if not (0 < self.beta_start <= self.beta_end < 1 and self.steps >= 2):
            raise ConfigError(
                f"betas {self.beta_start}..{self.beta_end} in {self.steps} steps",
                where="VPPath",
                cure="0 < beta_start <= beta_end < 1 and steps >= 2",
            )

    @cached_property
    def _table(self) -> Tensor:
        """log-SNR at the knots, fp64, falling from data to noise."""
        if self.schedule == "linear":
            betas = torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)
        else:
            betas = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float64) ** 2
        alpha = torch.cumprod(1 - betas, 0).sqrt()
        if self.zero_terminal_snr:
            alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
        alpha_bar = alpha.square()
        return alpha_bar.clamp_min(SMALLEST**2).log() - (1 - alpha_bar).log()

    @cached_property
    def _copies(self) -> dict[tuple[torch.device, torch.dtype], Tensor]:
        return {}

    def _knots(self, like: Tensor) -> Tensor:
        key = (like.device, like.dtype)
        if key not in self._copies:
            self._copies[key] = self._table.to(*key)
        return self._copies[key]

    def _segment(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Offset inside the segment of t (in knots), and the log-SNR at its two ends."""
        index = _time(t).clamp(0, 1) * (self.steps - 1)
        left = index.floor().clamp_max(self.steps - 2).long()
        knots = self._knots(t)
        return index - left, knots[left], knots[left + 1]

    def log_snr(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """2 log(alpha / sigma), linear between the knots."""
        offset, left, right = self._segment(t)
        return left + offset * (right - left)

    def _log_snr_rate(self, t: Tensor) -> Tensor:
        _, left, right = self._segment(t)
        return (right - left) * (self.steps - 1)

    def alpha(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Coefficient of the data."""
        return torch.sigmoid(self.log_snr(t)).sqrt()

    def sigma(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Coefficient of the noise."""
        return torch.sigmoid(-self.log_snr(t)).sqrt()

    def alpha_rate(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """d alpha / dt = alpha sigma^2 / 2 * d log_snr / dt."""
        return self.alpha(t) * self.sigma(t).square() / 2 * self._log_snr_rate(t)

    def sigma_rate(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """d sigma / dt = -sigma alpha^2 / 2 * d log_snr / dt."""
        return -self.sigma(t) * self.alpha(t).square() / 2 * self._log_snr_rate(t)

    def time_of_log_snr(self, log_snr: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The inverse, held to the table's ends."""
        rising = self._knots(_time(log_snr)).flip(0)
        wanted = log_snr.clamp(rising[0], rising[-1])
        right = torch.searchsorted(rising, wanted.contiguous()).clamp(1, self.steps - 1)
        low, high = rising[right - 1], rising[right]
        # counted from the noise end, because the flipped table rises from there
        from_noise = (right - 1 + (wanted - low) / (high - low)) / (self.steps - 1)
        return (1 - from_noise).to(log_snr.dtype)


PATHS = {"linear": LinearPath, "vp": VPPath}


def build_path(name: str, config: dict[str, Any] | None = None) -> LinearPath | VPPath:
    """The path that was saved as (name, config())."""
    if name not in PATHS:
        raise ConfigError(f"unknown path {name!r}", where="path", cure=f"one of {sorted(PATHS)}")
    known = PATHS[name].__dataclass_fields__
    for key in config or {}:
        if key not in known:
            raise ConfigError(f"{name} path has no setting {key!r}", where="path", cure=f"one of {sorted(known)}")
    return PATHS[name](**(config or {}))


def match(source: Any, target: Any, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """The time on `target` at which signal to noise is what it is at t on `source`."""
    return target.time_of_log_snr(source.log_snr(t))


def fraction(path: Any, t: Float[Tensor, "*b"], toward: str) -> Float[Tensor, "*b"]:
    """How far t is on the way to `toward`: 0 at the other end, 1 there."""
    near, far = (path.t_noise, path.t_data) if toward == "noise" else (path.t_data, path.t_noise)
    return (_time(t) - far) / (near - far)


def time_at(path: Any, share: Float[Tensor, "*b"], toward: str) -> Float[Tensor, "*b"]:
    """The inverse of `fraction`."""
    near, far = (path.t_noise, path.t_data) if toward == "noise" else (path.t_data, path.t_noise)
    return far + _time(share) * (near - far)
