"""A very small TinyFlux in the real trainer, for numerical faults, with all its bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from tests.app.runs import settings
from tests.faults.small_runs import SMALL
from tinyflux_pl.app.caches.prepare import prepare
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.fitting.training_run import TrainingRun
from tinyflux_pl.app.run import assemble
from tinyflux_pl.checkpoints.directory import Checkpoint

# nothing but steps, unless a test asks for it
QUIET = (
    "callbacks.checkpoint.every_steps=0",
    "callbacks.preview.every_steps=0",
    "callbacks.validation.every_steps=0",
)


def fitting(
    root: Path, name: str, *overrides: str, resumed: Checkpoint | None = None
) -> TrainingRun:
    """The run `name`, ready for `fit()`; its cache is shared by all runs below `root`."""
    config = settings("train", root, *SMALL, *QUIET, "logger=none", f"run={name}", *overrides)
    parts = Parts.from_config(config)
    return assemble(parts, prepare(parts), resumed)


def bits(fit: TrainingRun) -> dict[str, torch.Tensor]:
    """Copies of the raw weights, the averages and the optimizer's tensors."""
    average = fit.trainable.average
    tensors = {f"raw.{k}": v for k, v in average.raw_weights(fit.trainable.denoiser).items()}
    tensors |= {f"averaged.{k}": v for k, v in average.averages.items()}
    _collect(fit.trainer.optimizers[0].state_dict(), "optimizer", tensors)
    return {name: value.detach().clone() for name, value in tensors.items()}


def differing(
    one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], *prefixes: str
) -> list[str]:
    """Names of the tensors that are not the same to the bit."""
    names = [n for n in one.keys() | other.keys() if n.startswith(prefixes or ("",))]
    return sorted(
        n for n in names if n not in one or n not in other or not torch.equal(one[n], other[n])
    )


class Steps(Callback):
    """Each step's loss, and the bits that the steps of `kept` left."""

    def __init__(self, fit: TrainingRun, kept: set[int]) -> None:
        self.fit, self.kept = fit, kept
        self.losses: dict[int, float] = {}
        self.bits: dict[int, dict[str, torch.Tensor]] = {}
        fit.trainer.callbacks.append(self)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.losses[pl_module.step] = float(pl_module.step_metrics["loss"])
        if pl_module.step in self.kept and pl_module.step not in self.bits:
            self.bits[pl_module.step] = bits(self.fit)


class Elsewhere(Exception):
    """An error that is no fault of training."""


class FailsAt(Callback):
    """An error before a micro-batch, counted in its step."""

    def __init__(self, step: int, micro_batch: int) -> None:
        self.position = (step, micro_batch)
        self.count: dict[int, int] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.count[pl_module.step] = self.count.get(pl_module.step, -1) + 1
        if (pl_module.step, self.count[pl_module.step]) == self.position:
            raise Elsewhere


def _collect(value: Any, name: str, collected: dict[str, torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        collected[name] = value
    elif isinstance(value, dict):
        for key, item in value.items():
            _collect(item, f"{name}.{key}", collected)
