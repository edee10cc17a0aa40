"""The order of samples where sources differ in shape: every batch holds samples of one shape."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from tinyflux_pl.cache.pooled_order import PooledOrder, pools_of
from tinyflux_pl.cache.sample_order import ROUND, SampleOrder, interleaving
from tinyflux_pl.core import rng


class SameShapeOrder(SampleOrder):
    """A SampleOrder whose batches never mix shapes.

    Like its parent it is a pure function of (seed, step). Sources of one shape share a SampleOrder
    of their own. The shapes take turns by whole batches, evenly spread in proportion to the summed
    weights of their sources (to their lengths without weights).
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None,
        shapes: Sequence[Hashable],
    ) -> None:
        weights = [float(length) for length in lengths] if weights is None else list(weights)
        super().__init__(lengths, batch_size, seed, weights)
        by_shape: dict[Hashable, list[int]] = {}
        for source, shape in enumerate(shapes):
            by_shape.setdefault(shape, []).append(source)
        groups = list(by_shape.values())
        self._orders = [
            SampleOrder(
                [self.lengths[k] for k in group],
                batch_size,
                rng.derive(seed, "order/shape", number),
                [weights[k] for k in group],
            )
            for number, group in enumerate(groups)
        ]
        self._global = [
            np.concatenate([self._offsets[k] + np.arange(self.lengths[k]) for k in group])
            for group in groups
        ]
        self._shape_turns = interleaving(
            [sum(weights[k] for k in group) for group in groups], len(groups)
        )

    def batch(self, step: int) -> list[int]:
        """Global indices of the step-th global batch, all of one shape."""
        pattern, before = self._shape_turns
        rounds, slot = divmod(step, ROUND)
        group = int(pattern[slot])
        earlier = int(rounds * before[-1, group] + before[slot, group])
        return self._global[group][self._orders[group].batch(earlier)].tolist()


Rates = tuple[Sequence[int], Sequence[float]]  # repeats and weight of each row of a source
Runs = Sequence[tuple[range, Hashable]]  # rows of one shape that lie together, and the shape


def sample_order(
    runs: Sequence[Runs],
    batch_size: int,
    seed: int,
    weights: Sequence[float] | None = None,
    rates: Sequence[Rates | None] = (),
) -> SampleOrder:
    """The order for sources of these runs of global rows, their weights, and the rates of rows."""
    lengths = [sum(len(rows) for rows, _ in source) for source in runs]
    if any(rates) or any(len(source) > 1 for source in runs):
        row_rates = [*rates] or [None] * len(runs)
        pools = []
        for k, source in enumerate(runs):
            repeats, factors = row_rates[k] or ([1] * lengths[k], [1.0] * lengths[k])
            share = None if weights is None else weights[k]
            pools += pools_of(source, repeats, factors, share)
        return PooledOrder(pools, batch_size, seed)
    shapes = [source[0][1] for source in runs]
    if len(set(shapes)) > 1:
        return SameShapeOrder(lengths, batch_size, seed, weights, shapes)
    return SampleOrder(lengths, batch_size, seed, weights)
