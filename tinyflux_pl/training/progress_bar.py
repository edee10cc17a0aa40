"""The progress bar of a run: steps, rate, time left and loss."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from tinyflux_pl.core import progress
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.logged_metrics import LoggedMetrics
from tinyflux_pl.training.step_callback import StepCallback


class RunBar(StepCallback):
    """Counts optimizer steps of the whole run: a resumed run continues the count."""

    def __init__(self, steps: int, metrics: LoggedMetrics) -> None:
        self.steps = steps
        self.metrics = metrics
        self._bar: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero:
            self._bar = progress.bar("train", self.steps, "step", done=pl_module.step)

    def on_step(self, trainer: Trainer, pl_module: FlowModule) -> None:
        if self._bar is not None:
            if "train/loss" in self.metrics.latest:
                self._bar.set_postfix(
                    {"loss": f"{self.metrics.latest['train/loss']:.4f}"}, refresh=False
                )
            self._bar.update(pl_module.step - self._bar.n)

    def on_train_end(self, trainer: Trainer, pl_module: FlowModule) -> None:
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: FlowModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
