"""Continue a run from a checkpoint: weights before fitting, optimizer and averages once it starts."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from tinyflux_pl.checkpoints.directory import Checkpoint, load_weights
from tinyflux_pl.training.ema import AveragedWeights


class Resume(Callback):
    """Restores what a checkpoint holds; order, noise and times follow from the step alone."""

    def __init__(self, checkpoint: Checkpoint, denoiser: Any, average: AveragedWeights | None) -> None:
        self.state = checkpoint.state()
        load_weights(denoiser, checkpoint.weights("raw"), str(checkpoint.path))
        if average is not None and "average_updates" in self.state:
            names = {name for name, p in denoiser.named_parameters() if p.requires_grad}
            averages = checkpoint.weights("averaged")
            average.averages = {k: averages[k].float() for k, _ in denoiser.named_parameters() if k in names}
            average.updates = self.state["average_updates"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.optimizers[0].load_state_dict(self.state["optimizer"])
