"""Differences of two arms, seed by seed: what the seeds share cancels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.statistics.bootstrap import RESAMPLES, Interval, mean_interval


@dataclass(frozen=True)
class PairedDifference:
    """Second minus first of every seed in `seeds`, with the interval of their mean.

    `unpaired` are the seeds of one arm alone, which do not count.
    """

    interval: Interval
    seeds: tuple[int, ...]
    differences: Float[np.ndarray, " n"]
    unpaired: tuple[int, ...]


def paired_difference(
    first: Mapping[int, float],
    second: Mapping[int, float],
    *,
    common: bool = False,
    level: float = 0.95,
    method: str = "percentile",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """The mean of second - first over seeds, each seed -> its value.

    Raises DataError if the arms have other seeds, unless `common` restricts them to those that both
    have; for fewer than two pairs; and for values that are not finite.
    """
    seeds = tuple(sorted(first.keys() & second.keys()))
    unpaired = tuple(sorted(first.keys() ^ second.keys()))
    if unpaired and not common:
        raise DataError(
            f"seeds of one arm alone: {', '.join(map(str, unpaired))}",
            where="paired_difference",
            cure="run them in the other arm too, or compare the common seeds (common=True)",
        )
    if len(seeds) < 2:
        count = f"{len(seeds)} common seed{'s' if len(seeds) != 1 else ''}"
        cure = "run both arms with two seeds or more"
        raise DataError(f"{count}: nothing to pair", where="paired_difference", cure=cure)
    differences = np.array([second[s] - first[s] for s in seeds], dtype=np.float64)
    interval = mean_interval(differences, level, method, resamples, seed)
    return PairedDifference(interval, seeds, differences, unpaired)
