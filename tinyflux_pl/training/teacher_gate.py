"""Passes the student's validation error to the velocity targets, which drop worse teachers."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from tinyflux_pl.core import metric_names
from tinyflux_pl.objectives.velocity_targets import VelocityTargets
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.stateful_callback import StatefulCallback
from tinyflux_pl.training.step_callback import StepCallback
from tinyflux_pl.training.validation import Validation


class TeacherGate(StepCallback, StatefulCallback):
    """After each validation, passes the errors of the averaged weights to the targets.

    Runs after Validation. A checkpoint of the same step was written before it; a run that resumes
    there validates first, so that it continues with equal errors.
    """

    checkpoint_key = "TeacherGate"

    def __init__(self, targets: VelocityTargets, validation: Validation) -> None:
        self.targets, self.validation = targets, validation

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._observe(pl_module)

    def on_step(self, trainer: Trainer, pl_module: FlowModule) -> None:
        self._observe(pl_module)

    def _observe(self, pl_module: FlowModule) -> None:
        if self.validation.performed != pl_module.step:
            return
        times = self.validation.grid.times
        names = [metric_names.VALIDATION_AT.of(time=f"{time:g}") for time in times]
        errors = [self.validation.errors[name] for name in names]
        self.targets.observe(times, errors, pl_module.denoiser.path)

    def state(self) -> dict[str, Any]:
        return self.targets.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.targets.restore(state)
