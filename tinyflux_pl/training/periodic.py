"""Callbacks that act every so many steps, such as validation and previews."""

from __future__ import annotations

from lightning.pytorch import Trainer

from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.step_callback import StepCallback
from tinyflux_pl.training.throughput import paused


class Periodic(StepCallback):
    """Calls `perform` every `every_steps` steps and after the last one (0: only there).

    Runs after the step's checkpoint, so that a failure here loses no step. A run that resumes at
    such a step starts with it, and so ends with the same images and log as an uninterrupted one.
    """

    def __init__(self, every_steps: int) -> None:
        self.every_steps = every_steps
        self.performed: int | None = None  # the last step of a call of `perform`

    def perform(self, trainer: Trainer, pl_module: FlowModule) -> None:
        """Do the work of the module's current step; every rank takes part."""
        self.performed = pl_module.step

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        super().on_train_start(trainer, pl_module)
        if pl_module.step and self._due(pl_module.step):
            self.perform(trainer, pl_module)

    def on_step(self, trainer: Trainer, pl_module: FlowModule) -> None:
        if self._due(pl_module.step):
            with paused(trainer):
                self.perform(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: FlowModule) -> None:
        if self.performed != pl_module.step:
            self.perform(trainer, pl_module)

    def _due(self, step: int) -> bool:
        return bool(self.every_steps) and step % self.every_steps == 0
