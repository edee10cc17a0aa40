"""Which samples make the batch of a step: a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError

ROUND = 4096  # slots in which weighted sources take their turns; weights are exact to 1 / ROUND


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
            raise ConfigError(f"an order over sources of {list(lengths)} samples in batches of {batch_size}")
        self.lengths, self.batch_size, self.seed = list(lengths), batch_size, seed
        self.total = sum(self.lengths)
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}
        self._turns = None if weights is None else turns(weights, len(self.lengths))

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every sample (as many samples, with weights) has been drawn: rounded up."""
        return -(-self.total // self.batch_size)

    def epoch_of(self, step: int) -> int:
        """The epoch of the step's first sample."""
        return step * self.batch_size // self.total

    def batch(self, step: int) -> list[int]:
        """Global indices of the step-th global batch."""
        slots = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        if self._turns is None:
            return self._draw(0, slots, self.total).tolist()
        pattern, before = self._turns
        rounds, place = np.divmod(slots, ROUND)
        source = pattern[place]
        ordinal = rounds * before[-1, source] + before[place, source]
        indices = np.empty_like(slots)
        for k in np.unique(source).tolist():
            mine = source == k
            indices[mine] = self._offsets[k] + self._draw(k + 1, ordinal[mine], self.lengths[k])
        return indices.tolist()

    def rank_slice(self, step: int, rank: int, world: int) -> list[int]:
        """One rank's part of the step's global batch: the parts of all ranks, in order, are the batch."""
        if self.batch_size % world:
            cure = f"choose a global batch that {world} divides"
            raise ConfigError(
                f"a global batch of {self.batch_size} does not divide among {world} ranks",
                cure=cure,
            )
        part = self.batch_size // world
        return self.batch(step)[rank * part : (rank + 1) * part]

    def _draw(self, stream: int, ordinals: np.ndarray, length: int) -> np.ndarray:
        epochs, places = np.divmod(ordinals, length)
        drawn = np.empty_like(ordinals)
        for epoch in np.unique(epochs).tolist():
            mine = epochs == epoch
            drawn[mine] = self._permutation(stream, epoch, length)[places[mine]]
        return drawn

    def _permutation(self, stream: int, epoch: int, length: int) -> np.ndarray:
        """One permutation a stream is kept, the latest: memory does not grow with epochs."""
        kept = self._permutations.get(stream)
        if kept is None or kept[0] != epoch:
            generator = rng.generator(self.seed, "order", stream, epoch)
            kept = (epoch, torch.randperm(length, generator=generator).numpy())
            self._permutations[stream] = kept
        return kept[1]


class OrderedBatchSampler(Sampler[list[int]]):
    """The batches of steps start .. stop - 1, for one rank: a DataLoader's `batch_sampler`."""

    def __init__(self, order: SampleOrder, start: int, stop: int, rank: int = 0, world: int = 1) -> None:
        self.order, self.start, self.stop, self.rank, self.world = order, start, stop, rank, world

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            yield self.order.rank_slice(step, self.rank, self.world)


def turns(weights: Sequence[float], sources: int) -> tuple[np.ndarray, np.ndarray]:
    """Whose turn each slot of a round is (ROUND,), and turns taken before each slot (ROUND + 1, sources)."""
    weight = np.asarray(weights, dtype=np.float64)
    if weight.shape != (sources,) or not np.isfinite(weight).all() or (weight <= 0).any():
        cure = "give one positive weight for each source; leave a source out to weigh it 0"
        raise ConfigError(f"weights {list(weights)} for {sources} sources", cure=cure)
    exact = weight / weight.sum() * ROUND
    quota = np.floor(exact).astype(np.int64)
    largest = np.argsort(-(exact - quota), kind="stable")[: ROUND - int(quota.sum())]
    quota[largest] += 1
    if (quota == 0).any():
        raise ConfigError(f"weights {list(weights)}: the smallest is under 1/{ROUND} of all", cure="raise it")
    when = np.concatenate([(np.arange(q) + 0.5) / q for q in quota])
    owner = np.repeat(np.arange(sources), quota)
    pattern = owner[np.lexsort((owner, when))]
    taken = np.cumsum(pattern[:, None] == np.arange(sources), axis=0)
    return pattern, np.concatenate([np.zeros((1, sources), np.int64), taken])
