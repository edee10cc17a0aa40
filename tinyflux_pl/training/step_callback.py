"""Callbacks that act once per optimizer step, however many micro-batches it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, Trainer

from tinyflux_pl.training.flow_module import FlowModule


class StepCallback(Callback, ABC):
    """Calls `on_step` after each optimizer step of the run, also after one that was rejected.

    Within an accumulated step the module's `step` does not change. A subclass that has a hook of
    these names calls the one here.
    """

    _last_step = 0

    @abstractmethod
    def on_step(self, trainer: Trainer, pl_module: FlowModule) -> None:
        """Act on the module's current step."""

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        self._last_step = pl_module.step

    def on_train_batch_end(self, trainer: Trainer, pl_module: FlowModule, *_: Any) -> None:
        if pl_module.step != self._last_step:
            self._last_step = pl_module.step
            self.on_step(trainer, pl_module)
