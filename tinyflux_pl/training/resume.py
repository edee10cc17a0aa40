"""Continue a run: restore weights before fitting; optimizer, averages and callbacks as it
starts.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from tinyflux_pl.checkpoints.directory import Checkpoint, load_weights, plain_key
from tinyflux_pl.checkpoints.training_state import require_finite
from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.older_state import without_unused_parameters
from tinyflux_pl.training.optimizers import MuonAdamW
from tinyflux_pl.training.stateful_callback import restore_states


class Resume(Callback):
    """Restores a checkpoint. Order, noise, times and learning rates follow from the step alone."""

    def __init__(
        self, checkpoint: Checkpoint, denoiser: nn.Module, average: AveragedWeights | None
    ) -> None:
        self.path = str(checkpoint.path)
        self.saved_state = checkpoint.state()
        raw = checkpoint.weights("raw")
        require_finite(raw, self.path)
        load_weights(denoiser, raw, self.path)
        if average is not None and "average_updates" in self.saved_state:
            averages = checkpoint.weights("averaged")
            require_finite(averages, self.path)
            # Copies: a tensor still mapped from a file keeps its disk space after pruning.
            average.averages = {
                name: averages[plain_key(name)].to(torch.float32, copy=True)
                for name, parameter in denoiser.named_parameters()
                if parameter.requires_grad
            }
            average.updates = self.saved_state["average_updates"]

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        for optimizer in trainer.optimizers:
            _restore_optimizer(optimizer, self.saved_state["optimizer"], self.path)
        restore_states(trainer.callbacks, self.saved_state.get("callbacks", {}))


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], where: str) -> None:
    # Learning rates and other options come from this run's configuration, not from the checkpoint.
    options_of_groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    try:
        if isinstance(optimizer, MuonAdamW):
            parts = {"muon": optimizer.muon, "adamw": optimizer.adamw}
            fitted = {
                name: without_unused_parameters(state[name], part.param_groups)
                for name, part in parts.items()
            }
        else:
            fitted = without_unused_parameters(state, optimizer.param_groups)
        optimizer.load_state_dict(fitted)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointMismatch(
            f"the optimizer's state does not fit: {error}",
            where=where,
            cure="use the optimizer of the run, or start another run: run=NAME, without resume",
        ) from error
    for group, options in zip(optimizer.param_groups, options_of_groups, strict=True):
        group.update(options)
