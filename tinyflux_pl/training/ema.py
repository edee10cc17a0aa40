"""Averaged weights, kept in fp32 beside the raw ones."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.diffusion import averaging


class AveragedWeights(Callback):
    """EMA of the trainable parameters, updated once an optimizer step.

    decay: constant after `decay_at`'s warm-up min(decay, (1 + n) / (10 + n)), n the run's own count of steps,
    so that a resumed run averages as an unbroken one. A step that the guard refuses moves nothing, and weights
    that are not finite never enter.
    Validation, previews and final pictures use the averages inside `applied`, which always
    puts the raw weights back; a checkpoint taken in there has `raw_weights`.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            cure = "at least 0 and below 1, such as 0.995: the share that stays at each step"
            raise ConfigError(f"decay is {decay}", where="callbacks.ema.decay", cure=cure)
        self.decay, self.warmup = decay, warmup
        self.averages: dict[str, Tensor] = {}
        self.updates = 0  # the step that the averages stand at
        self._raw: dict[str, Tensor] = {}  # held while the averages are in their place

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.updates = pl_module.step
        if not self.averages:
            self.averages = {k: p.detach().float().clone() for k, p in _trainable(pl_module.denoiser)}
        self.averages = {k: v.to(pl_module.device) for k, v in self.averages.items()}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if pl_module.step == self.updates:  # within an accumulated step
            return
        self.updates = pl_module.step
        kind = "warmup" if self.warmup else "constant"
        decay = averaging.decay_at(self.updates - 1, self.decay, kind)
        values = [p.detach() for _, p in _trainable(pl_module.denoiser)]
        taken = None if pl_module.guard is None else pl_module.guard.taken
        averaging.lerp_(list(self.averages.values()), values, decay, taken)

    @contextmanager
    def applied(self, denoiser: nn.Module) -> Generator[None]:
        """The averages in place of the raw weights, for the length of the block."""
        if self._raw:  # a block inside a block
            yield
            return
        self._raw = {k: p.detach().clone() for k, p in _trainable(denoiser)}
        try:
            self._copy(self.averages, denoiser)
            yield
        finally:
            raw, self._raw = self._raw, {}
            self._copy(raw, denoiser)

    def raw_weights(self, denoiser: nn.Module) -> dict[str, Tensor]:
        """The whole state dict as training left it, also while the averages are in their place."""
        return {**denoiser.state_dict(), **self._raw}

    def weights(self, denoiser: nn.Module) -> dict[str, Tensor]:
        """The whole state dict with the averages in it (fp32)."""
        return {**denoiser.state_dict(), **self.averages}

    @staticmethod
    @torch.no_grad()
    def _copy(values: dict[str, Tensor], denoiser: nn.Module) -> None:
        for name, parameter in _trainable(denoiser):
            parameter.copy_(values[name])


def _trainable(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(k, p) for k, p in module.named_parameters() if p.requires_grad]
