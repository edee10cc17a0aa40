"""Which times to train on, and which to stop at when sampling.

A sampler maps uniforms u (B,) in (0, 1) to times, so that randomness stays with the caller.
Means and shifts are said in terms of `toward`: with "noise" (the default) a positive mean or a
shift above 1 favours noisy times on every path. "data" is what the original TinyFlux did: FLUX's
formula applied to its own t, where 1 is data; kept for its published weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.paths import fraction, time_at

EDGE = 1e-4  # training times stay this far from both ends


def flux_shift(t: Float[Tensor, "*b"], shift: float) -> Float[Tensor, "*b"]:
    """s t / (1 + (s - 1) t): pushes towards 1 for s > 1. SD3 (2403.03206), equation 23."""
    return shift * t / (1 + (shift - 1) * t)


def flux_unshift(t: Float[Tensor, "*b"], shift: float) -> Float[Tensor, "*b"]:
    """The inverse of `flux_shift`."""
    return t / (shift - (shift - 1) * t)


def resolution_shift(tokens: int, base: int = 256, largest: int = 4096, low: float = 0.5, high: float = 1.15) -> float:
    """FLUX's shift for an image of that many tokens: exp of a line through (base, low), (largest, high)."""
    return math.exp(low + (high - low) * (tokens - base) / (largest - base))


def shift_time(t: Float[Tensor, "*b"], shift: float, path: Any, toward: str = "noise") -> Float[Tensor, "*b"]:
    """Times of `path` pushed towards one of its ends."""
    return time_at(path, flux_shift(fraction(path, t, toward), shift), toward)


def check_shift(shift: float, toward: str, where: str) -> None:
    """Raise ConfigError for a shift that is not positive, or an end that is neither noise nor data."""
    if not (shift > 0 and math.isfinite(shift)):
        raise ConfigError(f"shift={shift!r}", where=where, cure="a positive number; 1 leaves times as they are")
    if toward not in ("noise", "data"):
        raise ConfigError(f"toward={toward!r}", where=where, cure="noise, or data (the original TinyFlux)")


def grid(steps: int, path: Any, shift: float = 1.0, toward: str = "noise") -> Float[Tensor, " n"]:
    """steps + 1 times in fp32 from t_noise to t_data, even before the shift. The shift is applied once."""
    if steps < 1:
        raise ConfigError(f"steps={steps}", where="sampling grid", cure="at least 1")
    check_shift(shift, toward, "sampling grid")
    times = shift_time(torch.linspace(path.t_noise, path.t_data, steps + 1), shift, path, toward)
    times[0], times[-1] = path.t_noise, path.t_data  # s / (1 + (s - 1)) may round beside 1
    return times


def _place(share: Tensor, shift: float, path: Any, toward: str) -> Tensor:
    return time_at(path, flux_shift(share.float(), shift), toward).clamp(EDGE, 1 - EDGE)


@dataclass(frozen=True)
class Uniform:
    """Even in t, then shifted."""

    shift: float = 1.0
    toward: str = "noise"

    def __post_init__(self) -> None:
        check_shift(self.shift, self.toward, "timesteps Uniform")

    def __call__(self, u: Float[Tensor, " b"], path: Any) -> Float[Tensor, " b"]:
        """Times (B,) fp32 in [1e-4, 1 - 1e-4]."""
        return _place(u, self.shift, path, self.toward)


@dataclass(frozen=True)
class LogitNormal:
    """sigmoid(mean + std n), then shifted; n is the normal quantile of u. SD3, equation 19."""

    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0
    toward: str = "noise"

    def __post_init__(self) -> None:
        check_shift(self.shift, self.toward, "timesteps LogitNormal")
        if not self.std > 0:
            raise ConfigError(f"std={self.std!r}", where="timesteps LogitNormal", cure="a positive number")

    def from_normal(self, raw: Float[Tensor, " b"], path: Any) -> Float[Tensor, " b"]:
        """Times from standard normal draws."""
        return _place(torch.sigmoid(self.mean + self.std * raw), self.shift, path, self.toward)

    def __call__(self, u: Float[Tensor, " b"], path: Any) -> Float[Tensor, " b"]:
        """Times (B,) fp32 in [1e-4, 1 - 1e-4]."""
        return self.from_normal(torch.special.ndtri(u.double()).float(), path)


@dataclass(frozen=True)
class Mode:
    """SD3's mode sampling, equation 20: 1 - u - scale (cos^2(pi u / 2) - 1 + u), as a share of noise."""

    scale: float = 1.29
    shift: float = 1.0
    toward: str = "noise"

    def __post_init__(self) -> None:
        check_shift(self.shift, self.toward, "timesteps Mode")
        if not -1 <= self.scale <= 2 / (math.pi - 2):
            raise ConfigError(
                f"scale={self.scale!r}",
                where="timesteps Mode",
                cure="between -1 and 2 / (pi - 2) = 1.752; outside it no longer maps (0, 1) one to one",
            )

    def __call__(self, u: Float[Tensor, " b"], path: Any) -> Float[Tensor, " b"]:
        """Times (B,) fp32 in [1e-4, 1 - 1e-4]."""
        share = 1 - u - self.scale * (torch.cos(math.pi / 2 * u).square() - 1 + u)
        return _place(share, self.shift, path, self.toward)


@dataclass(frozen=True)
class Stratified:
    """One draw in each of the batch's B equal strata, then the base sampler: lower variance.

    The only sampler whose times depend on the batch's size and order.
    """

    base: Uniform | LogitNormal | Mode = Uniform()

    def __call__(self, u: Float[Tensor, " b"], path: Any) -> Float[Tensor, " b"]:
        """Times (B,) fp32; row i lies in stratum i."""
        rows = torch.arange(len(u), device=u.device, dtype=u.dtype)
        return self.base((rows + u) / len(u), path)
