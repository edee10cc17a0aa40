"""Bootstrap intervals of a mean over a few seeds (Efron and Tibshirani 1993, chapters 13, 14)."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import DataError

METHODS = ("percentile", "bca")
EXACT = 6  # up to so many values all n^n resamples are formed (6: 46,656) and nothing is drawn
RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its interval at `level`; `count` values by `method`."""

    mean: float
    low: float
    high: float
    level: float
    method: str
    count: int


def mean_interval(
    values: Float[np.ndarray, " n"],
    level: float = 0.95,
    method: str = "percentile",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The bootstrap interval of the mean of `values`, two or more of them, all finite.

    percentile: quantiles of the resampled means. bca: the same quantiles, corrected for bias and
    acceleration. Few values give too narrow an interval: docs/report.md has the measured coverage.
    Raises DataError for values that have no interval.
    """
    values = _checked(values, level, method)
    means = resampled_means(values, resamples, seed)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _corrected(values, means, tails)
    low, high = np.quantile(means, tails, method="inverted_cdf")
    return Interval(float(values.mean()), float(low), float(high), level, method, len(values))


def resampled_means(
    values: Float[np.ndarray, " n"], resamples: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, " r"]:
    """Means of resamples with replacement: of all n^n up to EXACT values, else of a seeded draw."""
    count = len(values)
    if count <= EXACT:
        rows = np.indices((count,) * count).reshape(count, -1).T
    else:
        generator = np.random.default_rng(rng.derive(seed, "bootstrap"))
        rows = generator.integers(count, size=(resamples, count))
    return values[rows].mean(1)


def _corrected(
    values: Float[np.ndarray, " n"], means: Float[np.ndarray, " r"], tails: Float[np.ndarray, " 2"]
) -> Float[np.ndarray, " 2"]:
    """BCa's quantiles in place of `tails`: ties count half, the acceleration is the jackknife's."""
    estimate = values.mean()
    below = np.mean(means < estimate) + np.mean(np.isclose(means, estimate)) / 2
    if not 0 < below < 1:
        return tails
    normal = NormalDist()
    bias = normal.inv_cdf(float(below))
    left_out = (values.sum() - values) / (len(values) - 1)
    deviation = left_out.mean() - left_out
    spread = float((deviation**2).sum())
    acceleration = float((deviation**3).sum()) / (6 * spread**1.5) if spread else 0.0
    shifted = [bias + normal.inv_cdf(float(tail)) for tail in tails]
    return np.array([normal.cdf(bias + z / (1 - acceleration * z)) for z in shifted])


def _checked(values: Float[np.ndarray, " n"], level: float, method: str) -> Float[np.ndarray, " n"]:
    if len(values) < 2:
        what = f"{len(values)} value{'s' if len(values) != 1 else ''}, which have no interval"
        raise DataError(what, where="mean_interval", cure="give two seeds or more")
    if not np.isfinite(values).all():
        cure = "leave the failed runs out, and say so"
        raise DataError("values that are not finite", where="mean_interval", cure=cure)
    if not 0 < level < 1:
        raise DataError(f"level is {level}", where="mean_interval", cure="between 0 and 1: 0.95")
    if method not in METHODS:
        cure = f"choose {' or '.join(METHODS)}"
        raise DataError(f"no method {method!r}", where="mean_interval", cure=cure)
    return values.astype(np.float64)
