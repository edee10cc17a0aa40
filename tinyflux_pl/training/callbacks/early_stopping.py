"""Stop a run whose monitored metric no longer improves, or has reached a threshold."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Literal

from lightning.pytorch import Trainer

from tinyflux_pl.core import progress
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.metric_log import MetricListener
from tinyflux_pl.training.stateful_callback import StatefulCallback
from tinyflux_pl.training.step_callback import StepCallback

log = logging.getLogger(__name__)


class EarlyStopping(MetricListener, StepCallback, StatefulCallback):
    """Ends training after `patience` values of `monitor` in a row without an improvement.

    An improvement is a change by more than `min_delta` for the better; a value that is not finite
    is none. A value at least as good as `stopping_threshold` ends training at once. Lightning's
    class looks only at the end of an epoch, and a run is one epoch. Counts continue in a resumed
    run, and every rank sees the same values.
    """

    checkpoint_key = "EarlyStopping"

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"],
        patience: int,
        min_delta: float = 0.0,
        stopping_threshold: float | None = None,
    ) -> None:
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.min_delta = min_delta
        self.stopping_threshold = stopping_threshold
        self.best = math.inf  # of the value, or of its negative with mode max
        self.waited = 0  # values since the best one
        self._seen = False

    def on_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if self.monitor not in metrics:
            return
        self._seen = True
        value = self._signed(metrics[self.monitor])
        if value < self.best - self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._stop_if_due(trainer, pl_module)

    def on_step(self, trainer: Trainer, pl_module: FlowModule) -> None:
        self._stop_if_due(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: FlowModule) -> None:
        if not self._seen:
            log.warning("callbacks.early_stopping did nothing: this run logged no %s", self.monitor)

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]

    def _stop_if_due(self, trainer: Trainer, pl_module: FlowModule) -> None:
        reached = self._reached_threshold()
        if trainer.should_stop or not (reached or self.waited >= self.patience):
            return
        trainer.should_stop = True
        if trainer.is_global_zero:
            best = self._signed(self.best)
            reason = f"has not improved on {best:.4g} for {self.waited} values"
            if reached:
                reason = f"is {best:.4g}, stopping_threshold {self.stopping_threshold:.4g}"
            progress.say(f"step {pl_module.step:,}: training stops, {self.monitor} {reason}")

    def _reached_threshold(self) -> bool:
        threshold = self.stopping_threshold
        return threshold is not None and self.best <= self._signed(threshold)

    def _signed(self, value: float) -> float:
        """The value, or with mode max its negative: smaller is better, as in `best`."""
        return value if self.mode == "min" else -value
