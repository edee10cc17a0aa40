"""When checkpoints are written, and how many stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.training.ema import AveragedWeights


class CheckpointSchedule(Callback):
    """`step_N` every `every_steps`, `epoch_N` every `every_epochs`, and one when training ends.

    `config` is what generate.py needs to rebuild the parts: registry names, never targets.
    The newest `keep` of each kind stay.
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
    ) -> None:
        self.folder, self.config, self.average = Path(folder), config, average
        self.steps_per_epoch, self.keep = steps_per_epoch, keep
        self.every_steps, self.every_epochs = every_steps, every_epochs
        self.last: Path | None = None
        self._seen = -1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = pl_module.step
        if step == self._seen:
            return
        self._seen = step
        if self.every_steps and step % self.every_steps == 0:
            self.save(trainer, pl_module, f"step_{step:07d}", "step_*")
        interval = self.every_epochs * self.steps_per_epoch
        if interval and step % interval == 0:
            self.save(trainer, pl_module, f"epoch_{step // self.steps_per_epoch:05d}", "epoch_*")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer, pl_module, f"step_{pl_module.step:07d}", "step_*")

    def save(self, trainer: Trainer, pl_module: LightningModule, name: str, pattern: str) -> None:
        """Write `name` on rank 0, then drop the oldest of its kind."""
        self.last = self.folder / name
        if not trainer.is_global_zero:
            return
        optimizer = trainer.optimizers[0].state_dict()
        state = {"step": pl_module.step, "optimizer": optimizer}
        if self.average is not None:
            state["average_updates"] = self.average.updates
        directory.save(
            self.last,
            step=pl_module.step,
            config=self.config,
            weights=pl_module.denoiser.state_dict(),
            averaged=None if self.average is None else self.average.weights(pl_module.denoiser),
            state=state,
        )
        directory.prune(self.folder, self.keep, pattern)
