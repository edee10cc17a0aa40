"""The schedule of checkpoints, and the number that is kept."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.background_writer import BackgroundWriter
from tinyflux_pl.checkpoints.snapshot import snapshot
from tinyflux_pl.checkpoints.verified import VerifiedCache
from tinyflux_pl.core.errors import ConfigError, NumericsError
from tinyflux_pl.training import optimizer_states
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.saved_tensors import saved_tensors
from tinyflux_pl.training.stateful_callback import collect_states
from tinyflux_pl.training.step_callback import StepCallback
from tinyflux_pl.training.throughput import paused


class CheckpointSchedule(StepCallback):
    """`step_N` every `every_steps`, `epoch_N` every `every_epochs`, and one when training ends.

    `config` is what generate.py needs to rebuild the parts: registry names, never targets.
    The newest `keep` valid checkpoints of each kind stay. While the guard keeps rejecting steps
    nothing is deleted, since the newest weights may be the cause. Weights that are not finite are
    never saved. With `background`, training waits only while the weights are copied off the device;
    a failed write stops the run at its next step.
    """

    def __init__(
        self,
        folder: str | Path,
        config: dict[str, Any],
        average: AveragedWeights | None,
        steps_per_epoch: int,
        every_steps: int = 500,
        every_epochs: int = 0,
        keep: int = 2,
        background: bool = True,
    ) -> None:
        if keep < 1:
            raise ConfigError(
                f"keep is {keep}", where="callbacks.checkpoint.keep", cure="at least 1"
            )
        self.folder = Path(folder)
        self.config = config
        self.average = average
        self.steps_per_epoch = steps_per_epoch
        self.every_steps = every_steps
        self.every_epochs = every_epochs
        self.keep = keep
        self.background = background
        self._writer = BackgroundWriter()
        self._verified = VerifiedCache()
        self._last: Path | None = None
        self._on_disk: set[Path] = set()
        self._start_step = -1

    @property
    def last(self) -> Path | None:
        """The newest checkpoint, once it is on disk; raises the error of a failed write."""
        self._writer.wait()
        return self._last

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._start_step = pl_module.step

    def on_step(self, trainer: Trainer, pl_module: FlowModule) -> None:
        step = pl_module.step
        self._writer.check()
        if self.every_steps and step % self.every_steps == 0:
            with paused(trainer):
                self.save(trainer, pl_module, f"step_{step:07d}", "step_*")
        interval = self.every_epochs * self.steps_per_epoch
        if interval and step % interval == 0:
            with paused(trainer):
                self.save(
                    trainer, pl_module, f"epoch_{step // self.steps_per_epoch:05d}", "epoch_*"
                )

    def on_train_end(self, trainer: Trainer, pl_module: FlowModule) -> None:
        self.save_now(trainer, pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: FlowModule, exception: BaseException
    ) -> None:
        """Finish the pending write; print its failure, so that `exception` is raised."""
        try:
            self._writer.wait()
        except Exception as error:
            print(f"the last checkpoint could not be written: {error}", file=sys.stderr)

    def save_now(self, trainer: Trainer, pl_module: FlowModule) -> None:
        """Return once the current step's checkpoint is on disk; write nothing if it already is."""
        step = pl_module.step
        name = f"step_{step:07d}"
        path = self.folder / name
        try:
            self._writer.wait()
        finally:  # an earlier failure is raised, but only once this step is saved
            self._last = path
            # A run that resumed and took no step has not restored its optimizer yet: saving now
            # would replace a complete checkpoint by an incomplete one.
            no_step_taken = step == self._start_step
            resumed_from_it = no_step_taken and trainer.is_global_zero and directory.verifies(path)
            if path not in self._on_disk and not resumed_from_it:
                self.save(trainer, pl_module, name, "step_*")
                self._writer.wait()

    def save(self, trainer: Trainer, pl_module: FlowModule, name: str, pattern: str) -> None:
        """Copy the state on rank 0, write it as `name`, then delete the oldest of its `pattern`.

        Raises NumericsError, on every rank, where weights or averages are not finite.
        """
        module, average = pl_module.network, self.average
        # During validation the module holds the averages: ask for the raw weights.
        state_dict = module.state_dict() if average is None else average.raw_weights(module)
        weights = saved_tensors(pl_module, state_dict)
        averages = None if average is None else average.averages
        self._require_finite(pl_module, weights, averages or {})
        self._last = self.folder / name
        if not trainer.is_global_zero:
            return
        self._writer.wait()  # before copying, so that at most one copy is in memory
        optimizers = optimizer_states.collect(pl_module.optimizer_names, trainer.optimizers)
        state = {"step": pl_module.step, "optimizer": optimizers}
        if average is not None:
            state["average_updates"] = average.updates
        state["callbacks"] = collect_states(trainer.callbacks)
        contents = snapshot(
            {
                "step": pl_module.step,
                "config": self.config,
                "weights": weights,
                "averaged": averages,
                "state": state,
            }
        )
        guard = pl_module.guard
        keep = None if guard is not None and guard.rejecting else self.keep
        self._writer.start(partial(self._write, self.folder / name, pattern, keep, contents))
        if not self.background:
            self._writer.wait()

    def _write(self, path: Path, pattern: str, keep: int | None, contents: dict[str, Any]) -> None:
        directory.save(path, **contents)
        self._on_disk.add(path)
        if keep is not None:
            directory.prune(self.folder, keep, pattern, self._verified)

    def _require_finite(
        self, pl_module: FlowModule, weights: Mapping[str, Tensor], averages: Mapping[str, Tensor]
    ) -> None:
        """Check weights: the guard checks only gradients, and finite ones may overflow."""
        tensors = {
            name: weights[name]
            for name, parameter in pl_module.network.named_parameters()
            if parameter.requires_grad
        }
        tensors |= {f"the average of {name}": value for name, value in averages.items()}
        # Stacked, so that the host waits for the device once.
        finite = torch.stack([value.isfinite().all() for value in tensors.values()]).tolist()
        broken = [name for name, is_finite in zip(tensors, finite, strict=True) if not is_finite]
        if not broken:
            return
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise NumericsError(
            f"after step {pl_module.step} {broken[0]} is not finite{more}",
            where=str(self.folder),
            cure="it was not saved; choose a lower learning rate and continue from the newest "
            "checkpoint: resume=auto",
        )
