"""Timestep shifts: the formula of SD3 and FLUX, and the rules by which releases choose one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Path
from tinyflux_pl.diffusion.paths import progress_toward, time_at


def flux_shift(t: Float[Tensor, "*b"], shift: float) -> Float[Tensor, "*b"]:
    """s t / (1 + (s - 1) t): pushes towards 1 for s > 1. SD3 (2403.03206), equation 23."""
    return shift * t / (1 + (shift - 1) * t)


def flux_unshift(t: Float[Tensor, "*b"], shift: float) -> Float[Tensor, "*b"]:
    """The inverse of `flux_shift`; kept as a promise of parity with the published flux_utils."""
    return t / (shift - (shift - 1) * t)


def resolution_shift(
    tokens: int, base: int = 256, largest: int = 4096, low: float = 0.5, high: float = 1.15
) -> float:
    """FLUX's shift for a number of image tokens: exp of a line through two points.

    The points are (base, low) and (largest, high).
    """
    return math.exp(low + (high - low) * (tokens - base) / (largest - base))


def shift_time(
    t: Float[Tensor, "*b"], shift: float, path: Path, toward: str = "noise"
) -> Float[Tensor, "*b"]:
    """Times of `path` pushed towards one of its ends."""
    return time_at(path, flux_shift(progress_toward(path, t, toward), shift), toward)


def step_shift(tokens: int, steps: int) -> float:
    """FLUX.2's shift exp(mu) by image tokens and steps (BFL flux2, sampling.py, fitted).

    mu is linear in tokens at 10 and at 200 steps, linear in steps between and beyond; from 4300
    tokens on that of 200 steps holds for all.
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


Shift = float | str | Sequence[float]


def shift_for(shift: Shift, tokens: int, steps: int) -> float:
    """The shift as a number: given directly, or by a named or parametrised rule.

    FLUX.1's rule has the parameters [low, high, base, largest].
    """
    if isinstance(shift, str):
        return SHIFT_RULES[shift](tokens, steps)
    if isinstance(shift, Sequence):
        low, high, base, largest = shift
        return resolution_shift(tokens, int(base), int(largest), low, high)
    return shift


def check_shift(shift: Shift, toward: str, where: str, rules: bool = False) -> None:
    """Raise ConfigError for an invalid shift.

    Valid are positive numbers, rules where `rules` allows them, and the ends noise and data.
    """
    if isinstance(shift, Sequence) and not isinstance(shift, str):
        finite = len(shift) == 4 and all(
            isinstance(n, int | float) and math.isfinite(n) for n in shift
        )
        if not (rules and finite and 0 < shift[2] < shift[3]):
            cure = "a positive number, or [low, high, base, largest]: mu at two numbers of tokens"
            raise ConfigError(f"shift={list(shift)!r}", where=where, cure=cure)
    elif isinstance(shift, str):
        if not rules or shift not in SHIFT_RULES:
            cure = f"a positive number{', or a rule: ' + ', '.join(SHIFT_RULES) if rules else ''}"
            raise ConfigError(f"shift={shift!r}", where=where, cure=cure)
    elif not (shift > 0 and math.isfinite(shift)):
        raise ConfigError(
            f"shift={shift!r}", where=where, cure="a positive number; 1 leaves times as they are"
        )
    if toward not in ("noise", "data"):
        raise ConfigError(
            f"toward={toward!r}", where=where, cure="noise, or data (the original TinyFlux)"
        )
