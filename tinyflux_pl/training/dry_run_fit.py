"""Runs a rehearsal: a short fit of a throw-away module that leaves nothing of the process changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader, IterableDataset

from tinyflux_pl.cache.dataset import collate
from tinyflux_pl.core.errors import MemoryPlanError
from tinyflux_pl.core.types import Batch
from tinyflux_pl.training.dry_run import Rehearsal, Stages
from tinyflux_pl.training.trainer import make_trainer


def is_first_rank() -> bool:
    """Whether this process is the one of a run that speaks and writes, also before there is a trainer."""
    return rank_zero_only.rank == 0


def rehearse(
    module: LightningModule, stages: Stages, callbacks: Sequence[Callback], hardware: dict[str, Any], folder: str
) -> Rehearsal:
    """Fit the module with the run's own callbacks for a few micro-batches, each a step, on one device.

    No other rank takes part, so none can be waited for. Raises what Rehearsal raises, and MemoryPlanError
    where the memory runs out all the same.
    """
    rehearsal = Rehearsal(stages)
    devices = hardware["devices"]
    alone = {"devices": devices[:1] if isinstance(devices, list) else 1, "strategy": "auto", "accumulation": 1}
    with generators_kept():
        trainer = make_trainer({**hardware, **alone}, run_dir=folder, callbacks=[*callbacks, rehearsal], loggers=[])
        try:
            trainer.fit(module, DataLoader(_Stream(rehearsal.batches), batch_size=None, collate_fn=collate))
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
                what = f"the memory ran out: {str(error).splitlines()[0]}"
                raise MemoryPlanError(what, where=stages.where, cure=stages.cure("step", 0)) from error
            raise
    return rehearsal


@contextmanager
def generators_kept() -> Iterator[None]:
    """Whatever is drawn inside from torch's, numpy's and Python's own generators, they go on as they were."""
    state, python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            np.random.set_state(state)
            random.setstate(python)


class _Stream(IterableDataset):
    """What a function yields."""

    def __init__(self, source: Callable[[], Iterator[Batch]]) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Batch]:
        return self.source()
