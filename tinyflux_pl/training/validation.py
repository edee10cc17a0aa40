"""Validation of the averaged weights on a fixed grid, equal to the bit on any number of ranks."""

from __future__ import annotations

import logging
import math

import torch
from lightning.pytorch import Trainer

from tinyflux_pl.core import progress
from tinyflux_pl.core.errors import Interrupted
from tinyflux_pl.core.progress import track
from tinyflux_pl.objectives.validation import FixedGrid
from tinyflux_pl.sampling.loop import evaluating
from tinyflux_pl.training.datamodule import CachedLatents
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.periodic import Periodic
from tinyflux_pl.training.preemption import poll

log = logging.getLogger(__name__)


class Validation(Periodic):
    """Mean errors over the validation samples, logged under the run's own step.

    Not Lightning's loop, which counts the batches of this process: a resumed run would validate at
    other steps. During training the ranks divide the batches; afterwards one rank computes all.
    """

    def __init__(
        self, grid: FixedGrid, data: CachedLatents, average: AveragedWeights, every_steps: int
    ) -> None:
        super().__init__(every_steps)
        self.grid, self.data, self.average = grid, data, average
        self.errors: dict[str, float] = {}  # of the last time

    def perform(self, trainer: Trainer, pl_module: FlowModule) -> None:
        rank, world = 0, 1
        if trainer.training:
            rank, world = trainer.global_rank, trainer.world_size
        denoiser, data = pl_module.network, self.data
        device = next(denoiser.parameters()).device
        count = len(data.validation)
        loader = data.validation_batches(rank, world)
        sums = torch.zeros(len(data.validation_batches()), len(self.grid.names), device=device)
        names: list[str] = []
        try:
            with (
                self.average.applied(denoiser),
                evaluating(denoiser),
                trainer.precision_plugin.forward_context(),
            ):
                for i, batch in enumerate(
                    track(loader, "validate", len(loader), "batch", leave=False)
                ):
                    errors = self.grid.errors(denoiser, batch.to(device))
                    names = list(errors)
                    sums[rank + i * world] = torch.stack(list(errors.values())) * len(batch)
        except Interrupted:
            if world == 1:
                raise
        if world > 1:
            poll(trainer)
            torch.distributed.all_reduce(sums)  # each row is one rank's; the others add 0
        means = sums.cpu().double().sum(0) / count
        self.errors = dict(zip(names, means.tolist(), strict=False))
        not_finite = [
            f"{name} is {value}" for name, value in self.errors.items() if not math.isfinite(value)
        ]
        if not_finite:
            broken = ", ".join(not_finite)
            log.warning("validation at step %d: %s; training goes on", pl_module.step, broken)
        if trainer.is_global_zero:
            loss = self.errors["validation/loss"]
            progress.say(f"step {pl_module.step:,}: validation loss {loss:.4f}")
        for logger in trainer.loggers:
            logger.log_metrics(self.errors, step=pl_module.step)
        super().perform(trainer, pl_module)
