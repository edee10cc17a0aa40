"""The samples of each batch: a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from tinyflux_pl.cache.interleaving import apportion, interleave
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError

ROUND = 4096  # slots in which weighted sources take their turns; weights are exact to 1 / ROUND


class StepRows(list[int]):
    """The rows of a batch, and the optimizer step that they are drawn for."""

    def __init__(self, rows: Sequence[int], step: int) -> None:
        super().__init__(rows)
        self.step = step


class SampleOrder:
    """An endless stream of epochs, each a permutation, cut into global batches of `batch_size`.

    Slot s = step * batch_size + j. Without weights all sources form one permutation an epoch:
    slot s is entry s mod N of epoch s div N, so that a batch may straddle two epochs and nothing is
    lost or repeated within one. With weights each source keeps its own stream of permutations and
    takes turns by a fixed pattern of ROUND slots, evenly spread in proportion to the weights.
    Indices are global: source k's samples follow those of sources 0 .. k - 1.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        if not lengths or min(lengths) < 1 or batch_size < 1:
            what = f"an order over sources of {list(lengths)} samples in batches of {batch_size}"
            raise ConfigError(what)
        self.lengths = list(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.total = sum(self.lengths)
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}
        self._turns = None if weights is None else interleaving(weights, len(self.lengths))

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every sample has been drawn (with weights: as many samples).

        Rounded up.
        """
        return -(-self.total // self.batch_size)

    def batch(self, step: int) -> list[int]:
        """Global indices of the step-th global batch."""
        slots = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        if self._turns is None:
            return self._draw(0, slots, self.total).tolist()
        pattern, before = self._turns
        rounds, position = np.divmod(slots, ROUND)
        source = pattern[position]
        ordinal = rounds * before[-1, source] + before[position, source]
        indices = np.empty_like(slots)
        for k in np.unique(source).tolist():
            rows = source == k
            indices[rows] = self._offsets[k] + self._draw(k + 1, ordinal[rows], self.lengths[k])
        return indices.tolist()

    def rank_slice(self, step: int, rank: int, world: int) -> list[int]:
        """One rank's part of the step's global batch.

        The parts of all ranks, in order, are the batch.
        """
        if self.batch_size % world:
            cure = f"choose a global batch that {world} divides"
            what = f"a global batch of {self.batch_size} does not divide among {world} ranks"
            raise ConfigError(what, cure=cure)
        part = self.batch_size // world
        return self.batch(step)[rank * part : (rank + 1) * part]

    def _draw(self, stream: int, ordinals: np.ndarray, length: int) -> np.ndarray:
        epochs, positions = np.divmod(ordinals, length)
        samples = np.empty_like(ordinals)
        for epoch in np.unique(epochs).tolist():
            rows = epochs == epoch
            samples[rows] = self._permutation(stream, epoch, length)[positions[rows]]
        return samples

    def _permutation(self, stream: int, epoch: int, length: int) -> np.ndarray:
        """The permutation of an epoch.

        Only the latest of each stream is cached: memory stays constant.
        """
        cached = self._permutations.get(stream)
        if cached is None or cached[0] != epoch:
            generator = rng.generator(self.seed, "order", stream, epoch)
            cached = (epoch, torch.randperm(length, generator=generator).numpy())
            self._permutations[stream] = cached
        return cached[1]


class OrderedBatchSampler(Sampler[list[int]]):
    """The micro-batches start .. stop - 1, for one rank: a DataLoader's `batch_sampler`.

    An optimizer step has `accumulation` of them.
    """

    def __init__(
        self,
        order: SampleOrder,
        start: int,
        stop: int,
        rank: int = 0,
        world: int = 1,
        accumulation: int = 1,
    ) -> None:
        self.order = order
        self.start = start
        self.stop = stop
        self.rank = rank
        self.world = world
        self.accumulation = accumulation

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            rows = self.order.rank_slice(step, self.rank, self.world)
            yield StepRows(rows, step // self.accumulation)


def interleaving(weights: Sequence[float], sources: int) -> tuple[np.ndarray, np.ndarray]:
    """Source of each slot of a round (ROUND,); turns before each slot (ROUND + 1, sources)."""
    weight = np.asarray(weights, dtype=np.float64)
    if weight.shape != (sources,) or not np.isfinite(weight).all() or (weight <= 0).any():
        cure = "give one positive weight for each source; leave a source out to weigh it 0"
        raise ConfigError(f"weights {list(weights)} for {sources} sources", cure=cure)
    quota = apportion(weights, ROUND)
    if (quota == 0).any():
        what = f"weights {list(weights)}: the smallest is under 1/{ROUND} of all"
        raise ConfigError(what, cure="raise it")
    pattern, _ = interleave(quota)
    taken = np.cumsum(pattern[:, None] == np.arange(sources), axis=0)
    return pattern, np.concatenate([np.zeros((1, sources), np.int64), taken])
