"""Validation of the averaged weights on a fixed grid, bit-identical on any number of ranks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from tinyflux_pl.core import metric_names, progress
from tinyflux_pl.core.errors import Interrupted
from tinyflux_pl.core.progress import track
from tinyflux_pl.objectives.validation import FixedGrid
from tinyflux_pl.sampling.loop import evaluating
from tinyflux_pl.training.datamodule import CachedLatents
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.metric_log import log_scalars
from tinyflux_pl.training.periodic import Periodic
from tinyflux_pl.training.preemption import poll

log = logging.getLogger(__name__)


class Validation(Periodic):
    """Mean errors over the validation samples and, if `seen`, over as many training samples.

    Logged under the run's own step. Not Lightning's loop, which counts the batches of this process:
    a resumed run would validate at other steps. During training the ranks divide the batches;
    afterwards one rank computes all.
    """

    def __init__(
        self,
        grid: FixedGrid,
        data: CachedLatents,
        average: AveragedWeights,
        every_steps: int,
        seen: bool = True,
    ) -> None:
        super().__init__(every_steps)
        self.grid, self.data, self.average, self.seen = grid, data, average, seen
        self.errors: dict[str, float] = {}  # of the last time

    def perform(self, trainer: Trainer, pl_module: FlowModule) -> None:
        held_out = self._means(trainer, pl_module, self.data.validation_batches)
        self.errors = dict(zip(self.grid.names, held_out, strict=True))
        if self.seen:
            means = self._means(trainer, pl_module, self.data.seen_batches)
            seen_names = map(metric_names.on_seen, self.grid.names)
            self.errors |= dict(zip(seen_names, means, strict=True))
        not_finite = [
            f"{name} is {value}" for name, value in self.errors.items() if not math.isfinite(value)
        ]
        if not_finite:
            broken = ", ".join(not_finite)
            log.warning("validation at step %d: %s; training goes on", pl_module.step, broken)
        if trainer.is_global_zero:
            loss = self.errors[metric_names.VALIDATION_LOSS.pattern]
            progress.say(f"step {pl_module.step:,}: validation loss {loss:.4f}")
        log_scalars(trainer, self.errors, pl_module.step)
        super().perform(trainer, pl_module)

    def _means(
        self,
        trainer: Trainer,
        pl_module: FlowModule,
        batches: Callable[[int, int], DataLoader],
    ) -> list[float]:
        """The grid's errors, means over the samples of `batches(rank, world)`; collective."""
        rank, world = 0, 1
        if trainer.training:
            rank, world = trainer.global_rank, trainer.world_size
        denoiser = pl_module.network
        device = next(denoiser.parameters()).device
        loader, of_all_ranks = batches(rank, world), batches(0, 1)
        count = sum(map(len, of_all_ranks.batch_sampler))
        sums = torch.zeros(len(of_all_ranks), len(self.grid.names), device=device)
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
                    sums[rank + i * world] = torch.stack(list(errors.values())) * len(batch)
        except Interrupted:
            if world == 1:
                raise
        if world > 1:
            poll(trainer)
            torch.distributed.all_reduce(sums)  # each row is one rank's; the others add 0
        return (sums.cpu().double().sum(0) / count).tolist()
