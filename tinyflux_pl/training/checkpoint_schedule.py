"""When checkpoints are written, and how many stay."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.background_writer import BackgroundWriter
from tinyflux_pl.checkpoints.snapshot import snapshot
from tinyflux_pl.checkpoints.verified import Verified
from tinyflux_pl.core.errors import ConfigError, NumericsError
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.throughput import aside


class CheckpointSchedule(Callback):
    """`step_N` every `every_steps`, `epoch_N` every `every_epochs`, and one when training ends.

    `config` is what generate.py needs to rebuild the parts: registry names, never targets.
    The newest `keep` of each kind that verify stay, and all that are there while the guard refuses step after
    step: the newest may be what it refuses. Weights that are not finite are never saved. With `background`,
    training waits only while the weights are copied off the device; a failure to write stops it at its next
    step.
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
            raise ConfigError(f"keep is {keep}", where="callbacks.checkpoint.keep", cure="at least 1")
        self.folder, self.config, self.average = Path(folder), config, average
        self.steps_per_epoch, self.keep = steps_per_epoch, keep
        self.every_steps, self.every_epochs = every_steps, every_epochs
        self.background = background
        self._writer, self._whole = BackgroundWriter(), Verified()
        self._last: Path | None = None
        self._on_disk: set[Path] = set()
        self._seen = self._started = -1

    @property
    def last(self) -> Path | None:
        """The newest checkpoint, once it is on disk; raises what kept it from getting there."""
        self._writer.wait()
        return self._last

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = self._started = pl_module.step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = pl_module.step
        if step == self._seen:  # within an accumulated step
            return
        self._seen = step
        self._writer.check()
        if self.every_steps and step % self.every_steps == 0:
            with aside(trainer):
                self.save(trainer, pl_module, f"step_{step:07d}", "step_*")
        interval = self.every_epochs * self.steps_per_epoch
        if interval and step % interval == 0:
            with aside(trainer):
                self.save(trainer, pl_module, f"epoch_{step // self.steps_per_epoch:05d}", "epoch_*")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save_now(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Finish what is being written; should that fail too, it is told beside the exception, not in its place."""
        try:
            self._writer.wait()
        except Exception as error:
            print(f"the last checkpoint could not be written: {error}", file=sys.stderr)

    def save_now(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """When this returns, the step's checkpoint is on disk; if it is there already, nothing is written."""
        name, step = f"step_{pl_module.step:07d}", pl_module.step
        path = self.folder / name
        try:
            self._writer.wait()
        finally:  # that an earlier one failed is raised, once this one is saved
            self._last = path
            # A run that resumed and took no step yet has only what it came from, if its optimizer is even restored.
            came_from_here = step == self._started and trainer.is_global_zero and directory.verifies(path)
            if path not in self._on_disk and not came_from_here:
                self.save(trainer, pl_module, name, "step_*")
                self._writer.wait()

    def save(self, trainer: Trainer, pl_module: LightningModule, name: str, pattern: str) -> None:
        """Rank 0 copies what `name` will hold and has it written; the oldest of its kind go once it is there.

        Raises NumericsError, on every rank, where weights or averages are not finite.
        """
        module, average = pl_module.denoiser, self.average
        # the averages may be in their place just now, as in a validation
        weights = module.state_dict() if average is None else average.raw_weights(module)
        averages = None if average is None else average.averages
        self._require_finite(pl_module, weights, averages or {})
        self._last = self.folder / name
        if not trainer.is_global_zero:
            return
        self._writer.wait()  # before copying: one copy at a time is all the memory this takes
        state = {"step": pl_module.step, "optimizer": trainer.optimizers[0].state_dict()}
        if average is not None:
            state["average_updates"] = average.updates
        kept = [c for c in trainer.callbacks if hasattr(c, "state") and hasattr(c, "restore")]
        state["callbacks"] = {type(callback).__name__: callback.state() for callback in kept}
        step, config = pl_module.step, self.config
        held = snapshot({"step": step, "config": config, "weights": weights, "averaged": averages, "state": state})
        guard = pl_module.guard
        keep = None if guard is not None and guard.refusing else self.keep
        self._writer.start(partial(self._write, self.folder / name, pattern, keep, held))
        if not self.background:
            self._writer.wait()

    def _write(self, path: Path, pattern: str, keep: int | None, held: dict[str, Any]) -> None:
        directory.save(path, **held)
        self._on_disk.add(path)
        if keep is not None:
            directory.prune(self.folder, keep, pattern, self._whole)

    def _require_finite(
        self, pl_module: LightningModule, weights: Mapping[str, Tensor], averages: Mapping[str, Tensor]
    ) -> None:
        """The guard judges gradients; what a step makes of a sound one is judged here, before it displaces anything."""
        trained = [name for name, parameter in pl_module.denoiser.named_parameters() if parameter.requires_grad]
        kept = {name: weights[name] for name in trained}
        kept |= {f"the average of {name}": value for name, value in averages.items()}
        sound = torch.stack([value.isfinite().all() for value in kept.values()])  # one look at the device
        broken = [name for name, whole in zip(kept, sound.tolist(), strict=True) if not whole]
        if not broken:
            return
        raise NumericsError(
            f"after step {pl_module.step} {broken[0]} is not finite"
            + f", and {len(broken) - 1} more" * (len(broken) > 1),
            where=str(self.folder),
            cure="it is not saved; resume=auto goes on from the newest checkpoint: choose a lower learning rate",
        )
