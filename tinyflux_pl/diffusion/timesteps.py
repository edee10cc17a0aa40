"""Distributions of training times.

A sampler maps uniforms u (B,) in (0, 1) to times, so that randomness stays with the caller.
Means and shifts are measured toward `toward`: with "noise" (the default) a positive mean or a
shift above 1 favours noisy times on every path. "data" is what the original TinyFlux did: FLUX's
formula applied to its own t, where 1 is data; for its published weights.

A shift may be a rule's name (diffusion.shifts): then the number of an image's tokens is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.diffusion.grids import TABLE
from tinyflux_pl.diffusion.paths import time_at
from tinyflux_pl.diffusion.shifts import check_shift, flux_shift, shift_for

EDGE = 1e-4  # training times stay this far from both ends
KNOTS = 1 << 14  # of the table behind Beta's quantiles
# of the drawing whose shift is trained with, where a rule asks for it: the release's own number
RULE_STEPS = 50


def _shift_and_clamp(
    share: Tensor, shift: float | str, path: Path, toward: str, tokens: int | None
) -> Tensor:
    if isinstance(shift, str) and tokens is None:
        cure = "give the number of tokens of an image, or a number as the shift"
        raise ConfigError(
            f"shift={shift} needs to know the image", where="timesteps.shift", cure=cure
        )
    resolved = shift_for(shift, tokens or 0, RULE_STEPS)
    return time_at(path, flux_shift(share.float(), resolved), toward).clamp(EDGE, 1 - EDGE)


@dataclass(frozen=True)
class Uniform:
    """Even in t, then shifted."""

    shift: float | str = 1.0
    toward: str = "noise"

    def __post_init__(self) -> None:
        check_shift(self.shift, self.toward, "timesteps Uniform", rules=True)

    def __call__(
        self, u: Float[Tensor, " b"], path: Path, tokens: int | None = None
    ) -> Float[Tensor, " b"]:
        """Times (B,) fp32 in [1e-4, 1 - 1e-4]."""
        return _shift_and_clamp(u, self.shift, path, self.toward, tokens)


@dataclass(frozen=True)
class LogitNormal:
    """sigmoid(mean + std n), then shifted; n is the normal quantile of u. SD3, equation 19."""

    mean: float = 0.0
    std: float = 1.0
    shift: float | str = 1.0
    toward: str = "noise"

    def __post_init__(self) -> None:
        check_shift(self.shift, self.toward, "timesteps LogitNormal", rules=True)
        if not self.std > 0:
            raise ConfigError(
                f"std={self.std!r}", where="timesteps LogitNormal", cure="a positive number"
            )

    def from_normal(
        self, raw: Float[Tensor, " b"], path: Path, tokens: int | None = None
    ) -> Float[Tensor, " b"]:
        """Times from standard normal draws."""
        return _shift_and_clamp(
            torch.sigmoid(self.mean + self.std * raw), self.shift, path, self.toward, tokens
        )

    def __call__(
        self, u: Float[Tensor, " b"], path: Path, tokens: int | None = None
    ) -> Float[Tensor, " b"]:
        """Times (B,) fp32 in [1e-4, 1 - 1e-4]."""
        return self.from_normal(torch.special.ndtri(u.double()).float(), path, tokens)


@dataclass(frozen=True)
class Mode:
    """SD3's mode sampling, equation 20: u -> 1 - u - scale (cos^2(pi u / 2) - 1 + u).

    The result is a share of noise.
    """

    scale: float = 1.29
    shift: float | str = 1.0
    toward: str = "noise"

    def __post_init__(self) -> None:
        check_shift(self.shift, self.toward, "timesteps Mode", rules=True)
        if not -1 <= self.scale <= 2 / (math.pi - 2):
            raise ConfigError(
                f"scale={self.scale!r}",
                where="timesteps Mode",
                cure="between -1 and 2 / (pi - 2) = 1.752; outside it no longer maps (0, 1) one to "
                "one",
            )

    def __call__(
        self, u: Float[Tensor, " b"], path: Path, tokens: int | None = None
    ) -> Float[Tensor, " b"]:
        """Times (B,) fp32 in [1e-4, 1 - 1e-4]."""
        share = 1 - u - self.scale * (torch.cos(math.pi / 2 * u).square() - 1 + u)
        return _shift_and_clamp(share, self.shift, path, self.toward, tokens)


@dataclass(frozen=True)
class Beta:
    """Beta(a, b) as a share of noise, then shifted.

    Flux Core uses Beta(2.5, 2.0), which favours noise (mean 0.556).
    """

    a: float = 2.5
    b: float = 2.0
    shift: float | str = 1.0
    toward: str = "noise"

    def __post_init__(self) -> None:
        check_shift(self.shift, self.toward, "timesteps Beta", rules=True)
        if not (self.a >= 1 and self.b >= 1):  # below 1 the density is infinite at an end
            raise ConfigError(
                f"a={self.a!r}, b={self.b!r}",
                where="timesteps Beta",
                cure="two numbers of at least 1",
            )

    @cached_property
    def _table(self) -> Float[Tensor, " n"]:
        """The distribution function at KNOTS + 1 even points of [0, 1], fp64, midpoint rule."""
        middle = (torch.arange(KNOTS, dtype=torch.float64) + 0.5) / KNOTS
        mass = middle.pow(self.a - 1) * (-middle).log1p().mul(self.b - 1).exp()
        return torch.cat([torch.zeros(1, dtype=torch.float64), mass.cumsum(0) / mass.sum()])

    def from_beta(
        self, raw: Float[Tensor, " b"], path: Path, tokens: int | None = None
    ) -> Float[Tensor, " b"]:
        """Times from draws of Beta(a, b)."""
        return _shift_and_clamp(raw, self.shift, path, self.toward, tokens)

    def __call__(
        self, u: Float[Tensor, " b"], path: Path, tokens: int | None = None
    ) -> Float[Tensor, " b"]:
        """Times (B,) fp32 in [1e-4, 1 - 1e-4]: the quantile of u, to about 1e-5."""
        table = self._table.to(u.device)
        u = u.double()
        right = torch.searchsorted(table, u).clamp(1, KNOTS)
        low = table[right - 1]
        high = table[right]
        return self.from_beta((right - 1 + (u - low) / (high - low)) / KNOTS, path, tokens)


@dataclass(frozen=True)
class TableEntries:
    """The entries of a table of betas, uniformly, as epsilon networks were trained (DDPM).

    Exactly entry / (entries - 1) of the way to noise, both ends among them; for a variance
    preserving path.
    """

    entries: int = TABLE

    def __post_init__(self) -> None:
        if self.entries < 2:
            cure = "at least 2; as many as the path has steps"
            raise ConfigError(f"entries={self.entries}", where="timesteps TableEntries", cure=cure)

    def __call__(
        self, u: Float[Tensor, " b"], path: Path, tokens: int | None = None
    ) -> Float[Tensor, " b"]:
        """Times (B,) fp32 in [0, 1]."""
        entry = (u.double() * self.entries).floor().clamp(0, self.entries - 1)
        return time_at(path, (entry / (self.entries - 1)).float(), "noise")


Distribution = Uniform | LogitNormal | Mode | Beta | TableEntries
DISTRIBUTIONS: dict[str, type[Distribution]] = {
    "uniform": Uniform,
    "logit_normal": LogitNormal,
    "mode": Mode,
    "beta": Beta,
    "table": TableEntries,
}


@dataclass(frozen=True)
class Stratified:
    """One draw in each of the batch's B equal strata of a base distribution: lower variance.

    The only sampler whose times depend on the batch's size and order. A base may be a name of
    DISTRIBUTIONS, with its parameters beside it; None is that distribution's default. ConfigError
    for a parameter that it lacks.
    """

    base: str | Distribution = "uniform"
    shift: float | str | None = None
    toward: str | None = None
    mean: float | None = None
    std: float | None = None
    scale: float | None = None
    a: float | None = None
    b: float | None = None
    entries: int | None = None

    def __post_init__(self) -> None:
        _ = self.distribution

    @cached_property
    def distribution(self) -> Distribution:
        """The base, built."""
        values = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        parameters = {name: value for name, value in values.items() if value is not None}
        if isinstance(self.base, str) and self.base not in DISTRIBUTIONS:
            cure = f"one of {', '.join(DISTRIBUTIONS)}"
            raise ConfigError(f"no distribution {self.base!r}", where="timesteps.base", cure=cure)
        kind = DISTRIBUTIONS[self.base] if isinstance(self.base, str) else None
        allowed = [] if kind is None else [field.name for field in fields(kind)]
        for name in parameters:
            if name not in allowed:
                cure = f"it has {', '.join(allowed) or 'its parameters already'}"
                raise ConfigError(
                    f"{self.base} has no {name}", where=f"timesteps.{name}", cure=cure
                )
        return self.base if kind is None else kind(**parameters)

    def __call__(
        self, u: Float[Tensor, " b"], path: Path, tokens: int | None = None
    ) -> Float[Tensor, " b"]:
        """Times (B,) fp32; row i lies in stratum i."""
        rows = torch.arange(len(u), device=u.device, dtype=u.dtype)
        return self.distribution((rows + u) / len(u), path, tokens)
