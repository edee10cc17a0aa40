"""Averaged weights, kept in fp32 beside the raw ones."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from tinyflux_pl.diffusion import averaging


class AveragedWeights(Callback):
    """EMA of the trainable parameters, updated once an optimizer step.

    decay: constant after `decay_at`'s warm-up min(decay, (1 + n) / (10 + n)).
    Validation, previews and final pictures use the averages inside `applied`, which always
    puts the raw weights back.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        self.decay, self.warmup = decay, warmup
        self.averages: dict[str, Tensor] = {}
        self.updates = 0
        self._last_step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step
        if not self.averages:
            self.averages = {k: p.detach().float().clone() for k, p in _trainable(pl_module.denoiser)}
        self.averages = {k: v.to(pl_module.device) for k, v in self.averages.items()}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        kind = "warmup" if self.warmup else "constant"
        decay = averaging.decay_at(self.updates, self.decay, kind)
        values = [p.detach() for _, p in _trainable(pl_module.denoiser)]
        averaging.lerp_(list(self.averages.values()), values, decay)
        self.updates += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._scope = self.applied(pl_module.denoiser)
        self._scope.__enter__()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._leave()

    def _leave(self) -> None:
        scope, self._scope = getattr(self, "_scope", None), None
        if scope is not None:
            scope.__exit__(None, None, None)

    @contextmanager
    def applied(self, denoiser: nn.Module) -> Generator[None]:
        """The averages in place of the raw weights, for the length of the block."""
        raw = {k: p.detach().clone() for k, p in _trainable(denoiser)}
        try:
            self._copy(self.averages, denoiser)
            yield
        finally:
            self._copy(raw, denoiser)

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
