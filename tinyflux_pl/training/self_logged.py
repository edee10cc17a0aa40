"""Values logged with `self.log`, written under the run's own step."""

from __future__ import annotations

from lightning.pytorch import Trainer

from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.step_callback import StepCallback


class SelfLogged(StepCallback):
    """Write values of `self.log` to the loggers every `every_steps` steps and at the end.

    Lightning would write them under a count that starts again in a resumed run. Runs last, so that
    a value logged by another callback at a step is in that step's row.
    """

    def __init__(self, every_steps: int) -> None:
        self.every_steps = every_steps
        self._written_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._written_step = pl_module.step

    def on_step(self, trainer: Trainer, pl_module: FlowModule) -> None:
        if self.every_steps and pl_module.step % self.every_steps == 0:
            self._write(trainer, pl_module.step)

    def on_train_end(self, trainer: Trainer, pl_module: FlowModule) -> None:
        if self.every_steps and self._written_step != pl_module.step:
            self._write(trainer, pl_module.step)

    def _write(self, trainer: Trainer, step: int) -> None:
        self._written_step = step
        values = {name: float(value) for name, value in trainer.logged_metrics.items()}
        for logger in trainer.loggers if values else ():
            logger.log_metrics(values, step=step)
