"""The fit of a dry run: a few steps of a throw-away module, without side effects."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, IterableDataset

from tinyflux_pl.cache.dataset import collate
from tinyflux_pl.core.errors import MemoryPlanError
from tinyflux_pl.core.types import Batch
from tinyflux_pl.training.dry_run import DryRun, DryRunStages
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.trainer import make_trainer


def fit_dry_run(
    module: FlowModule,
    stages: DryRunStages,
    callbacks: Sequence[Callback],
    hardware: dict[str, Any],
    folder: str,
) -> DryRun:
    """Fit `module` with the run's own callbacks for a few one-micro-batch steps on one device.

    Only the calling rank takes part. Raises what DryRun raises, and MemoryPlanError where memory
    runs out in spite of the plan.
    """
    dry_run = DryRun(stages)
    devices = hardware["devices"]
    one_device = devices[:1] if isinstance(devices, list) else 1
    hardware = {**hardware, "devices": one_device, "strategy": "auto", "accumulation": 1}
    with preserved_generators():
        trainer = make_trainer(
            hardware, run_dir=folder, callbacks=[*callbacks, dry_run], loggers=[]
        )
        loader = DataLoader(_BatchStream(dry_run.batches), batch_size=None, collate_fn=collate)
        try:
            trainer.fit(module, loader)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
                raise MemoryPlanError(
                    f"the memory ran out: {str(error).splitlines()[0]}",
                    where=stages.where,
                    cure=stages.cure("step", 0),
                ) from error
            raise
    return dry_run


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Restore the global generators of torch, numpy and Python after the block."""
    numpy_state = np.random.get_state()
    python_state = random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


class _BatchStream(IterableDataset):
    """The batches that a generator function yields."""

    def __init__(self, source: Callable[[], Iterator[Batch]]) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Batch]:
        return self.source()
