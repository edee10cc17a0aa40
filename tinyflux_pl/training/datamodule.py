"""The LightningDataModule: cached sources, in an order that is a function of the step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from tinyflux_pl.cache.dataset import CachedDataset, collate
from tinyflux_pl.cache.mixture import Mixture
from tinyflux_pl.cache.same_shape_order import Rates, sample_order
from tinyflux_pl.cache.sample_order import OrderedBatchSampler, StepRows
from tinyflux_pl.core import interruption
from tinyflux_pl.core.types import Batch
from tinyflux_pl.training.data_wait import DataWait


class CachedLatents(LightningDataModule):
    """Batches of steps `start_step` to `stop_step` of a run, and an ordered validation set.

    A run is one stream of micro-batches, not a sequence of epochs: a resumed run continues with the
    next batch. One step has `accumulation` micro-batches. `weights` of the sources and `rates` of
    their rows: see sample_order. Validation takes at most `validation_samples`, evenly spaced.
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
        weights: Sequence[float] | None = None,
        rates: Sequence[Rates | None] = (),
        validation_samples: int | None = None,
    ) -> None:
        super().__init__()
        self.train = train
        self.validation = validation
        self.validation_stride = -(-len(validation) // (validation_samples or len(validation)))
        self.workers = workers
        self.order = sample_order(train.runs, batch_size, seed, weights, rates)
        self.accumulation = accumulation
        self.data_wait = DataWait()  # of the training batches
        self.start = start_step * accumulation  # in micro-batches
        self.stop = stop_step * accumulation

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in which every sample is drawn, rounded up as the order does."""
        return -(-self.order.steps_per_epoch // self.accumulation)

    def train_dataloader(self) -> DataLoader:
        """The run's remaining micro-batches, this rank's part of each."""
        rank, world = 0, 1
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        sampler = OrderedBatchSampler(
            self.order, self.start, self.stop, rank, world, self.accumulation
        )
        return _Batches(
            self.train,
            self.data_wait,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=self.workers,
            pin_memory=on_gpu,  # so that the copy to the GPU is asynchronous
            worker_init_fn=_begin_worker if self.workers else None,
        )

    def first_batch(self) -> Batch:
        """The run's first micro-batch, of all ranks together."""
        rows = self.order.batch(self.start)
        return self.train.__getitems__(StepRows(rows, self.start // self.accumulation))

    def validation_batches(self, rank: int = 0, world: int = 1) -> DataLoader:
        """Every `world`-th validation batch, in the order of the store, each of one shape."""
        stride = self.validation_stride
        rows = batches_of_one_shape(self.validation, self.order.batch_size, stride)[rank::world]
        return DataLoader(self.validation, batch_sampler=rows, collate_fn=collate)

    def seen_batches(self, rank: int = 0, world: int = 1) -> DataLoader:
        """The same for training samples: at most as many as in validation, evenly spaced."""
        stride = -(-len(self.train) // -(-len(self.validation) // self.validation_stride))
        rows = batches_of_one_shape(self.train, self.order.batch_size, stride)[rank::world]
        return DataLoader(self.train, batch_sampler=rows, collate_fn=collate)


def batches_of_one_shape(
    dataset: Mixture | CachedDataset, size: int, stride: int = 1
) -> list[list[int]]:
    """Every `stride`-th row in order, in batches of equal shape and at most `size` rows."""
    rows: list[list[int]] = []
    runs = [run for source in dataset.runs for run in source]
    for _, alike in groupby(runs, key=itemgetter(1)):
        pieces = [piece for piece, _ in alike]
        first, end = pieces[0].start, pieces[-1].stop
        selected = range(-(-first // stride) * stride, end, stride)
        rows += [list(selected[start : start + size]) for start in range(0, len(selected), size)]
    return rows


class _Batches(DataLoader):
    """A DataLoader that postpones signals until its workers ignore them, and times each batch."""

    def __init__(self, dataset: Any, data_wait: DataWait, **options: Any) -> None:
        super().__init__(dataset, **options)
        self._data_wait = data_wait

    def __iter__(self) -> Any:  # torch's iterator class is private
        with interruption.postponed():
            batches = super().__iter__()
        return self._data_wait.timed(batches)


def _begin_worker(_: int) -> None:
    interruption.leave_to_parent()
