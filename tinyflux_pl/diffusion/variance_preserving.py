"""Paths with alpha^2 + sigma^2 = 1: Stable Diffusion's table of betas, and EDM's noise levels."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.mixture import SMALLEST, Mixture, require_fp32_time

SCHEDULES = ("scaled_linear", "linear")


@dataclass(frozen=True)
class _VariancePreserving(Mixture):
    """alpha, sigma and their rates from the log-SNR and its rate."""

    @abstractmethod
    def log_snr(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """2 log(alpha / sigma)."""

    @abstractmethod
    def _log_snr_rate(self, t: Tensor) -> Tensor:
        """d log_snr / dt."""

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


@dataclass(frozen=True)
class VPPath(_VariancePreserving):
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
    # in place of exactly 0 there: 2^-24 in schedulers that divide by it
    terminal_alpha_bar: float = 0.0
    name: ClassVar[str] = "vp"
    t_noise: ClassVar[float] = 1.0
    t_data: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ConfigError(
                f"unknown beta schedule {self.schedule!r}",
                where="VPPath.schedule",
                cure=f"one of {SCHEDULES}",
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
            betas = (
                torch.linspace(
                    self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float64
                )
                ** 2
            )
        alpha = torch.cumprod(1 - betas, 0).sqrt()
        if self.zero_terminal_snr:
            alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
        alpha_bar = alpha.square()
        if self.zero_terminal_snr and self.terminal_alpha_bar:
            alpha_bar[-1] = self.terminal_alpha_bar
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
        index = require_fp32_time(t).clamp(0, 1) * (self.steps - 1)
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

    def network_time(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The time input of a network trained on this table: the entry's index."""
        return require_fp32_time(t) * (self.steps - 1)

    def time_of_log_snr(self, log_snr: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The inverse, clamped to the table's ends."""
        rising = self._knots(require_fp32_time(log_snr)).flip(0)
        clamped = log_snr.clamp(rising[0], rising[-1])
        right = torch.searchsorted(rising, clamped.contiguous()).clamp(1, self.steps - 1)
        low, high = rising[right - 1], rising[right]
        # counted from the noise end, because the flipped table rises from there
        from_noise = (right - 1 + (clamped - low) / (high - low)) / (self.steps - 1)
        return (1 - from_noise).to(log_snr.dtype)


@dataclass(frozen=True)
class EDMPath(_VariancePreserving):
    """EDM's noise levels, even in log sigma, as a path. Karras et al. 2022 (2206.00364).

    t = 0 is sigma_min, t = 1 is sigma_max. x0 + sigma noise, scaled by c_in = 1 / sqrt(sigma^2 +
    sigma_data^2) as the network reads it, is this path's x_t for data / sigma_data; the network's
    answer is then v, or its negative where it was trained as an epsilon.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float = 0.5
    name: ClassVar[str] = "edm"
    t_noise: ClassVar[float] = 1.0
    t_data: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.sigma_min < self.sigma_max < math.inf and 0 < self.sigma_data < math.inf):
            what = f"sigma {self.sigma_min} to {self.sigma_max}, of the data {self.sigma_data}"
            raise ConfigError(
                what, where="EDMPath", cure="0 < sigma_min < sigma_max, and sigma_data positive"
            )

    @property
    def _span(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def _log_sigma(self, t: Tensor) -> Tensor:
        return math.log(self.sigma_min) + require_fp32_time(t) * self._span

    def log_snr(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """2 log(sigma_data / sigma)."""
        return 2 * (math.log(self.sigma_data) - self._log_sigma(t))

    def _log_snr_rate(self, t: Tensor) -> Tensor:
        return torch.full_like(require_fp32_time(t), -2 * self._span)

    def network_time(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The network's time input: c_noise = log(sigma) / 4."""
        return self._log_sigma(t) / 4

    def time_of_log_snr(self, log_snr: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The inverse, clamped to the two ends."""
        log_sigma = math.log(self.sigma_data) - require_fp32_time(log_snr) / 2
        return ((log_sigma - math.log(self.sigma_min)) / self._span).clamp(0, 1)
