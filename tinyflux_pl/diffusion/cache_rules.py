"""Rules of a step cache: when the blocks of a network can be skipped in a sampling step.

`first_block` compares what the first block adds with what it added when the others ran last, as
diffusers' cache of that name does. `teacache` adds up the changes of the first block's modulated
input from step to step, each mapped by a polynomial that was fitted to the checkpoint, Liu et al.
2024 (2411.19108).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError

KINDS = ("none", "first_block", "teacache")
FEWEST_STEPS = 10
DEGREE = 4


@dataclass(frozen=True)
class CacheSettings:
    """Kind, threshold (0 computes every step), and the longest run of skipped steps.

    `coefficients` are TeaCache's polynomial, highest power first.
    """

    kind: str = "none"
    threshold: float = 0.1
    longest: int = 3
    coefficients: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            cure = f"choose {', '.join(KINDS)}"
            raise ConfigError(f"no cache {self.kind!r}", where="cache.kind", cure=cure)
        if not (0 <= self.threshold < math.inf and self.longest >= 1):
            what = f"threshold={self.threshold}, longest={self.longest}"
            raise ConfigError(what, where="cache", cure="a threshold of 0 or more, longest >= 1")
        if self.kind == "teacache" and len(self.coefficients) != DEGREE + 1:
            what = f"TeaCache needs {DEGREE + 1} coefficients that were fitted to this checkpoint"
            cure = "make their file with cache.calibrate=FILE, then cache.coefficients=FILE"
            raise ConfigError(what, where="cache.coefficients", cure=cure)

    def require_steps(self, steps: int) -> None:
        """Raise ConfigError for so few steps that consecutive ones differ too much."""
        if self.kind != "none" and steps < FEWEST_STEPS:
            what = f"{steps} steps: fewer than {FEWEST_STEPS} have nothing to reuse"
            raise ConfigError(what, where="cache.kind", cure="cache.kind=none, or more steps")


def relative_change(new: Tensor, old: Tensor) -> float:
    """|new - old| / |old| in the L1 norm."""
    return float((new - old).abs().mean() / old.abs().mean().clamp_min(1e-12))


def hits(settings: CacheSettings, movement: float, moved: float, passed: int) -> tuple[bool, float]:
    """True where the blocks can be skipped, and the movement since they last ran.

    `moved` is that before this step, `passed` the number of steps passed by since.
    """
    if settings.kind == "teacache":
        moved += max(float(np.polyval(settings.coefficients, movement)), 0.0)
    else:
        moved = movement
    return moved < settings.threshold and passed < settings.longest, moved


def fitted(movements: Sequence[float], changes: Sequence[float]) -> list[float]:
    """Least-squares polynomial of degree 4 through (input change, output change) pairs.

    ConfigError for too few pairs.
    """
    if len(movements) != len(changes) or len(movements) <= 2 * DEGREE:
        what = f"{len(movements)} steps are too few to fit a polynomial of degree {DEGREE} to"
        raise ConfigError(what, where="cache.calibrate", cure="draw more pictures, or more steps")
    return [float(c) for c in np.polyfit(movements, changes, DEGREE)]
