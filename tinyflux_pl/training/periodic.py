"""Work that belongs to certain steps, such as validation and previews."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from tinyflux_pl.training.throughput import aside


class Periodic(Callback):
    """Calls `perform` after every `every_steps`-th step of the run, and after the last one (0: only there).

    It comes after the step's checkpoint, so that nothing it does can lose the step; a run that resumes at
    such a step begins with it, and so ends with the same pictures and the same log as an unbroken one.
    """

    def __init__(self, every_steps: int) -> None:
        self.every_steps = every_steps
        self.performed: int | None = None  # the last step that it was done for
        self._seen = 0

    def perform(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do the work of the module's present step; every rank takes part."""
        self.performed = pl_module.step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = pl_module.step
        if self._seen and self._due(self._seen):
            self.perform(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if pl_module.step != self._seen:
            self._seen = pl_module.step
            if self._due(self._seen):
                with aside(trainer):
                    self.perform(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.performed != pl_module.step:
            self.perform(trainer, pl_module)

    def _due(self, step: int) -> bool:
        return bool(self.every_steps) and step % self.every_steps == 0
