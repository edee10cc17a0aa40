"""Continue a run: weights before fitting; optimizer, averages and callbacks at its start."""

from __future__ import annotations

from collections.abc import Collection

import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from tinyflux_pl.checkpoints.directory import Checkpoint, load_weights, plain_key
from tinyflux_pl.checkpoints.training_state import require_finite
from tinyflux_pl.training import optimizer_states
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.stateful_callback import restore_states


class Resume(Callback):
    """Restores a checkpoint. Order, noise, times and learning rates follow from the step alone.

    `saved` are the names of the denoiser's tensors that the checkpoint holds; None: all.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        denoiser: nn.Module,
        average: AveragedWeights | None,
        saved: Collection[str] | None = None,
    ) -> None:
        self.path = str(checkpoint.path)
        # the run's folder; the one in the middle may be a link to another disk
        paths = (checkpoint.path.absolute(), checkpoint.path.resolve())
        self.origins = {path.parent.parent.resolve() for path in paths}
        self.saved_state = checkpoint.state()
        raw = checkpoint.weights("raw")
        require_finite(raw, self.path)
        load_weights(denoiser, raw, self.path, saved)
        if average is not None and "average_updates" in self.saved_state:
            averages = checkpoint.weights("averaged")
            require_finite(averages, self.path)
            # Copies: a tensor still mapped from a file keeps its disk space after pruning.
            average.averages = {
                name: averages[plain_key(name)].to(torch.float32, copy=True)
                for name, _ in average.parameters(denoiser)
            }
            average.updates = self.saved_state["average_updates"]

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        saved = self.saved_state["optimizer"]
        optimizer_states.restore(pl_module.optimizer_names, trainer.optimizers, saved, self.path)
        restore_states(trainer.callbacks, self.saved_state.get("callbacks", {}))
