"""End a trial of a search early, if the pruner says so."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import Trainer

from tinyflux_pl.core.errors import Pruned
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.last_values import LastValues
from tinyflux_pl.training.step_callback import StepCallback


class Pruning(StepCallback):
    """Report each value of a logged metric; raise Pruned on every rank if told to stop.

    `report(value, step)` is asked on rank 0 alone, at multiples of `every_steps` before the last
    step. Runs after the callbacks that log the metric.
    """

    def __init__(
        self,
        report: Callable[[float, int], bool] | None,
        metric: str,
        logged: LastValues,
        every_steps: int,
        last_step: int,
    ) -> None:
        self.report, self.metric, self.logged = report, metric, logged
        self.every_steps, self.last_step = every_steps, last_step

    def on_step(self, trainer: Trainer, pl_module: FlowModule) -> None:
        step = pl_module.step
        if not self.every_steps or step % self.every_steps or step >= self.last_step:
            return
        value, at = self.logged.at.get(self.metric, (0.0, -1))
        stop = self.report is not None and at == step and self.report(value, step)
        if trainer.world_size > 1:
            stop, value = trainer.strategy.broadcast((stop, value))
        if stop:
            raise Pruned(self.metric, value, step)
