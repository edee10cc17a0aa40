"""Curves of guidance over the noise level: factors of `scale - 1` with mean 1.

A level is the data's share alpha / (alpha + sigma), 0 at noise and 1 at data. Wang et al. 2025
(2509.22007) let guidance rise while modes separate and fall while they concentrate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def constant(level: float, peak: float) -> float:
    """1 everywhere."""
    return 1.0


def triangle(level: float, peak: float) -> float:
    """0 at both ends, 2 at `peak`, straight between."""
    return 2 * (level / peak if level < peak else (1 - level) / (1 - peak))


def cosine(level: float, peak: float) -> float:
    """0 at both ends, 2 at `peak`, half a wave of a cosine on each side."""
    return 1 - math.cos(math.pi * triangle(level, peak) / 2)


CURVES: dict[str, Callable[[float, float], float]] = {
    "constant": constant,
    "triangle": triangle,
    "cosine": cosine,
}


def gain(heights: Sequence[float], lengths: Sequence[float]) -> float:
    """The factor that brings a curve's mean over steps of these lengths to 1.

    1 where the curve is 0 at every step.
    """
    area = sum(height * length for height, length in zip(heights, lengths, strict=True))
    return sum(lengths) / area if area > 0 else 1.0
