"""The order of samples in pools: frames of several shapes, repeats, weights of folders."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyflux_pl.cache.interleaving import apportion, interleave
from tinyflux_pl.cache.sample_order import ROUND, SampleOrder
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError


@dataclass(frozen=True)
class Pool:
    """Global rows of one shape that are drawn equally often; repeated rows are drawn repeatedly.

    `share` is the pool's part of all draws, in any unit.
    """

    rows: np.ndarray
    shape: Hashable
    share: float


class PooledOrder(SampleOrder):
    """A SampleOrder whose batches hold one shape each, a pure function of (seed, step).

    The pools of one shape share a SampleOrder; where their shares are the numbers of their rows
    they form one permutation an epoch. The shapes take turns by whole batches, evenly spread. With
    such natural shares a round of turns has as many batches as there are rows, so that within a
    round each row is drawn exactly `batch_size` times, and none is left out.
    """

    def __init__(self, pools: Sequence[Pool], batch_size: int, seed: int) -> None:
        super().__init__([sum(len(pool.rows) for pool in pools)], batch_size, seed)
        by_shape: dict[Hashable, list[Pool]] = {}
        for pool in sorted(pools, key=lambda pool: (pool.shape, int(pool.rows[0]))):
            by_shape.setdefault(pool.shape, []).append(pool)
        groups = list(by_shape.values())
        self._orders = [
            self._order_of(group, rng.derive(seed, "order/pool", number))
            for number, group in enumerate(groups)
        ]
        self._global = [np.concatenate([pool.rows for pool in group]) for group in groups]
        natural = all(map(_is_natural, pools))
        length = self.total if natural else max(ROUND, self.total)
        shares = [sum(pool.share for pool in group) for group in groups]
        self._pattern, self._earlier, self._quota = _interleaving(shares, length)

    def batch(self, step: int) -> list[int]:
        """Global rows of the step-th global batch, all of one shape."""
        rounds, slot = divmod(step, len(self._pattern))
        group = int(self._pattern[slot])
        earlier = rounds * int(self._quota[group]) + int(self._earlier[slot])
        return self._global[group][self._orders[group].batch(earlier)].tolist()

    def _order_of(self, group: Sequence[Pool], seed: int) -> SampleOrder:
        lengths = [len(pool.rows) for pool in group]
        densities = {round(pool.share / len(pool.rows), 12) for pool in group}
        shares = None if len(densities) == 1 else [pool.share for pool in group]
        return SampleOrder(lengths, self.batch_size, seed, shares)


def _is_natural(pool: Pool) -> bool:
    return pool.share == len(pool.rows)


def _interleaving(
    shares: Sequence[float], length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group of each slot of a round (length,), its earlier turns in the round, turns of each group.

    Evenly spread, in proportion to the shares (largest remainders), at least one turn each.
    """
    share = np.asarray(shares, dtype=np.float64)
    if not np.isfinite(share).all() or (share <= 0).any() or length < len(share):
        cure = "weights above 0 and below 1e30"
        raise ConfigError(f"shares of draws {list(shares)}", where="data", cure=cure)
    quota = apportion(shares, length, least=1)
    return *interleave(quota), quota


def pools_of(
    runs: Sequence[tuple[range, Hashable]],
    repeats: Sequence[int],
    weights: Sequence[float],
    share: float | None = None,
) -> list[Pool]:
    """The pools of one source: its rows by shape and weight, each row `repeats` times.

    `share` is the source's own part of all draws; None: the number of its rows, repeats and weights
    counted.
    """
    times, weight = np.asarray(repeats), np.asarray(weights, dtype=np.float64)
    pools, first = [], runs[0][0].start
    for rows, shape in runs:
        index = np.asarray(rows)
        for value in np.unique(weight[index - first]).tolist():
            chosen = index[weight[index - first] == value]
            drawn = np.repeat(chosen, times[chosen - first])
            pools.append(Pool(drawn, shape, value * len(drawn)))
    if share is None:
        return pools
    total = sum(pool.share for pool in pools)
    return [Pool(pool.rows, pool.shape, share * pool.share / total) for pool in pools]
