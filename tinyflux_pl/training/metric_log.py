"""Destinations of a run's scalars: loggers, `trainer.callback_metrics` and callbacks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from lightning.pytorch import Callback, Trainer


class MetricListener(Callback, ABC):
    """A callback that sees every scalar of the run when it is logged, on every rank."""

    @abstractmethod
    def on_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Scalars of one step, by name."""


def log_scalars(trainer: Trainer, metrics: Mapping[str, float], step: int) -> None:
    """Log scalars under the run's own step.

    Lightning's callbacks find them in `trainer.callback_metrics`, as after `self.log`.
    """
    trainer.callback_metrics.update(
        {name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}
    )
    for callback in trainer.callbacks:
        if isinstance(callback, MetricListener):
            callback.on_metrics(metrics, step)
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=step)
