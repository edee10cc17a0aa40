"""The LightningDataModule: a mixture of cached sources in an order that is a function of the step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from tinyflux_pl.cache.dataset import CachedDataset, collate
from tinyflux_pl.cache.mixture import Mixture
from tinyflux_pl.cache.same_shape_order import sample_order
from tinyflux_pl.cache.sample_order import OrderedBatchSampler
from tinyflux_pl.core import interruption


class CachedLatents(LightningDataModule):
    """Batches `start_step` to `stop_step` of a run, and a validation set in its own order.

    A run is one stream of micro-batches, not a sequence of restarted epochs: a resumed run
    asks for the batches that come next. `accumulation` micro-batches make one step.
    """

    def __init__(
        self,
        train: Mixture | CachedDataset,
        validation: Mixture | CachedDataset,
        batch_size: int,
        stop_step: int,
        start_step: int = 0,
        accumulation: int = 1,
        seed: int = 0,
        workers: int = 0,
        lengths: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.train, self.validation, self.workers = train, validation, workers
        lengths = lengths or train.lengths
        self.order = sample_order(lengths, batch_size, seed, weights, train.shapes)
        self.accumulation = accumulation
        self.start, self.stop = start_step * accumulation, stop_step * accumulation

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in which every sample has been drawn: rounded up, as the order's own micro-batches are."""
        return -(-self.order.steps_per_epoch // self.accumulation)

    def train_dataloader(self) -> DataLoader:
        """The run's remaining micro-batches, this rank's share of each."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        sampler = OrderedBatchSampler(self.order, self.start, self.stop, rank, world)
        return _Batches(
            self.train,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=self.workers,
            pin_memory=on_gpu,  # so that the host need not wait for a batch to arrive there
            worker_init_fn=_begin_worker if self.workers else None,
        )

    def validation_batches(self, rank: int = 0, world: int = 1) -> DataLoader:
        """Every `world`-th batch of the validation samples, in the order of the store, each of one shape."""
        rows = batches_of_one_shape(self.validation, self.order.batch_size)
        return DataLoader(self.validation, batch_sampler=rows[rank::world], collate_fn=collate)


def batches_of_one_shape(dataset: Mixture | CachedDataset, size: int) -> list[list[int]]:
    """All rows in order, in batches of at most `size` that end where the shape of a sample changes."""
    rows: list[list[int]] = []
    first = 0
    for _, sources in groupby(zip(dataset.shapes, dataset.lengths, strict=True), key=itemgetter(0)):
        end = first + sum(length for _, length in sources)
        rows += [list(range(start, min(start + size, end))) for start in range(first, end, size)]
        first = end
    return rows


class _Batches(DataLoader):
    """A DataLoader none of whose workers is ended by a signal before it has learnt to ignore it."""

    def __iter__(self) -> Any:  # of a class private to torch
        with interruption.postponed():
            return super().__iter__()


def _begin_worker(_: int) -> None:
    interruption.leave_to_parent()
