"""Continue a run from a checkpoint: weights before fitting; optimizer, averages and callbacks once it starts."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tinyflux_pl.checkpoints.directory import Checkpoint, load_weights, plain_key
from tinyflux_pl.checkpoints.training_state import require_finite
from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.older_state import fitted
from tinyflux_pl.training.optimizers import MuonAdamW


class Resume(Callback):
    """Restores what a checkpoint holds; order, noise, times and learning rates follow from the step alone."""

    def __init__(self, checkpoint: Checkpoint, denoiser: Any, average: AveragedWeights | None) -> None:
        self.path, self.state_then = str(checkpoint.path), checkpoint.state()
        raw = checkpoint.weights("raw")
        require_finite(raw, self.path)
        load_weights(denoiser, raw, self.path)
        if average is not None and "average_updates" in self.state_then:
            names = {name for name, p in denoiser.named_parameters() if p.requires_grad}
            averages = checkpoint.weights("averaged")
            require_finite(averages, self.path)
            # Copies: what stays mapped from the files would hold the disk's room after they are pruned.
            average.averages = {
                k: averages[plain_key(k)].to(torch.float32, copy=True)
                for k, _ in denoiser.named_parameters()
                if k in names
            }
            average.updates = self.state_then["average_updates"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            _restore(optimizer, self.state_then["optimizer"], self.path)
        kept = self.state_then.get("callbacks", {})
        for callback in trainer.callbacks:
            name = type(callback).__name__
            if name in kept:
                callback.restore(kept[name])


def _restore(optimizer: torch.optim.Optimizer, state: dict[str, Any], where: str) -> None:
    # What was asked for now holds: learning rates and the like come from this run's configuration and step.
    asked = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    try:
        if isinstance(optimizer, MuonAdamW):
            parts = {"muon": optimizer.muon.param_groups, "adamw": optimizer.adamw.param_groups}
            optimizer.load_state_dict({name: fitted(state[name], groups) for name, groups in parts.items()})
        else:
            optimizer.load_state_dict(fitted(state, optimizer.param_groups))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        cure = "choose the optimizer of the run, or begin another one: run=NAME, without resume"
        raise CheckpointMismatch(f"the optimizer's state does not fit: {error}", where=where, cure=cure) from error
    for group, options in zip(optimizer.param_groups, asked, strict=True):
        group.update(options)
