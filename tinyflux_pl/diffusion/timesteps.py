"""Which times to train on, and which to stop at when sampling.

A sampler maps uniforms u (B,) in (0, 1) to times, so that randomness stays with the caller.
Means and shifts are said in terms of `toward`: with "noise" (the default) a positive mean or a
shift above 1 favours noisy times on every path. "data" is what the original TinyFlux did: FLUX's
formula applied to its own t, where 1 is data; kept for its published weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion.paths import fraction, time_at

EDGE = 1e-4  # training times stay this far from both ends
KNOTS = 1 << 14  # of the table behind Beta's quantiles


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


def step_shift(tokens: int, steps: int) -> float:
    """FLUX.2's shift exp(mu) for an image of so many tokens in so many steps (BFL flux2, sampling.py, fitted).

    mu is linear in tokens at 10 and at 200 steps, linear in steps between and beyond; from 4300 tokens on that
    of 200 steps holds for all.
    """
    many = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return math.exp(many)
    few = 8.73809524e-05 * tokens + 1.89833333
    return math.exp(many + (many - few) / 190.0 * (steps - 200.0))


# name -> the shift for an image of so many tokens, drawn in so many steps
SHIFT_RULES: dict[str, Callable[[int, int], float]] = {
    "flux1": lambda tokens, steps: resolution_shift(tokens),
    "flux2": step_shift,
}


def shift_for(shift: float | str, tokens: int, steps: int) -> float:
    """A shift that is a number, or the one that a rule of SHIFT_RULES gives."""
    return SHIFT_RULES[shift](tokens, steps) if isinstance(shift, str) else shift


def check_shift(shift: float | str, toward: str, where: str, rules: bool = False) -> None:
    """Raise ConfigError for a shift that is neither positive nor (where `rules` are allowed) the name of a rule,
    or for an end that is neither noise nor data.
    """
    if isinstance(shift, str):
        if not rules or shift not in SHIFT_RULES:
            cure = f"a positive number{', or a rule: ' + ', '.join(SHIFT_RULES) if rules else ''}"
            raise ConfigError(f"shift={shift!r}", where=where, cure=cure)
    elif not (shift > 0 and math.isfinite(shift)):
        raise ConfigError(f"shift={shift!r}", where=where, cure="a positive number; 1 leaves times as they are")
    if toward not in ("noise", "data"):
        raise ConfigError(f"toward={toward!r}", where=where, cure="noise, or data (the original TinyFlux)")


SPACINGS = ("even", "sd3", "leading")
TABLE = 1000  # entries of the tables that Stability's networks were trained on


def grid(
    steps: int, path: Any, shift: float = 1.0, toward: str = "noise", spacing: str = "even"
) -> Float[Tensor, " n"]:
    """Times in fp32 from noise to data, the shift applied once.

    even: steps + 1 of them, from t_noise to t_data, even before the shift. sd3: steps of them down to the first
    entry of a shifted table, itself shifted again, then t_data (SD3's reference, and diffusers' scheduler where it
    is told a number of steps). leading: every (TABLE // steps)-th entry of a table of betas, counted from its
    second; the last is not t_data, and a sampler reads the data off there.
    """
    if steps < 1:
        raise ConfigError(f"steps={steps}", where="sampling grid", cure="at least 1")
    check_shift(shift, toward, "sampling grid")
    check_spacing(spacing, steps, shift, toward)
    if spacing == "leading":
        entries = torch.arange(steps - 1, -1, -1) * (TABLE // steps) + 1
        return time_at(path, entries.float() / (TABLE - 1), "noise")
    if spacing == "sd3":
        low = float(flux_shift(torch.tensor(1 / TABLE), shift))
        times = shift_time(time_at(path, torch.linspace(1.0, low, steps), "noise"), shift, path)
        times = torch.cat([times, times.new_tensor([path.t_data])])
    else:
        times = shift_time(torch.linspace(path.t_noise, path.t_data, steps + 1), shift, path, toward)
    times[0], times[-1] = path.t_noise, path.t_data  # s / (1 + (s - 1)) may round beside 1
    return times


def check_spacing(spacing: str, steps: int, shift: float | str, toward: str) -> None:
    """Raise ConfigError for a spacing that is none, or that does not go with the steps and the shift."""
    if spacing not in SPACINGS:
        raise ConfigError(f"no spacing {spacing!r}", where="sampler.spacing", cure=f"one of {', '.join(SPACINGS)}")
    if spacing == "leading" and (shift != 1 or steps > TABLE):
        cure = f"sampler.shift=1 and at most {TABLE} steps, or sampler.spacing=even"
        raise ConfigError(f"spacing=leading with shift={shift!r} and {steps} steps", where="sampler", cure=cure)
    if spacing == "sd3" and (isinstance(shift, str) or toward != "noise"):
        raise ConfigError("spacing=sd3 needs a number as its shift, toward noise", where="sampler", cure="shift=3.0")


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
class Beta:
    """Beta(a, b) as a share of noise, then shifted: Flux Core's Beta(2.5, 2.0) leans to noise (mean 0.556)."""

    a: float = 2.5
    b: float = 2.0
    shift: float = 1.0
    toward: str = "noise"

    def __post_init__(self) -> None:
        check_shift(self.shift, self.toward, "timesteps Beta")
        if not (self.a >= 1 and self.b >= 1):  # below 1 the density is infinite at an end
            raise ConfigError(f"a={self.a!r}, b={self.b!r}", where="timesteps Beta", cure="two numbers of at least 1")

    @cached_property
    def _table(self) -> Float[Tensor, " n"]:
        """The distribution function at KNOTS + 1 even places in [0, 1], fp64, by the midpoint rule."""
        middle = (torch.arange(KNOTS, dtype=torch.float64) + 0.5) / KNOTS
        mass = middle.pow(self.a - 1) * (-middle).log1p().mul(self.b - 1).exp()
        return torch.cat([torch.zeros(1, dtype=torch.float64), mass.cumsum(0) / mass.sum()])

    def from_beta(self, raw: Float[Tensor, " b"], path: Any) -> Float[Tensor, " b"]:
        """Times from draws of Beta(a, b)."""
        return _place(raw, self.shift, path, self.toward)

    def __call__(self, u: Float[Tensor, " b"], path: Any) -> Float[Tensor, " b"]:
        """Times (B,) fp32 in [1e-4, 1 - 1e-4]: the quantile of u, to about 1e-5."""
        known, wanted = self._table.to(u.device), u.double()
        right = torch.searchsorted(known, wanted).clamp(1, KNOTS)
        low, high = known[right - 1], known[right]
        return self.from_beta((right - 1 + (wanted - low) / (high - low)) / KNOTS, path)


@dataclass(frozen=True)
class Stratified:
    """One draw in each of the batch's B equal strata, then the base sampler: lower variance.

    The only sampler whose times depend on the batch's size and order.
    """

    base: Uniform | LogitNormal | Mode | Beta = Uniform()

    def __call__(self, u: Float[Tensor, " b"], path: Any) -> Float[Tensor, " b"]:
        """Times (B,) fp32; row i lies in stratum i."""
        rows = torch.arange(len(u), device=u.device, dtype=u.dtype)
        return self.base((rows + u) / len(u), path)
