"""The LightningModule of every denoiser: objective in, loss out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from tinyflux_pl.core import rng
from tinyflux_pl.core.types import Batch
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.training.nonfinite_guard import NonFiniteGuard
from tinyflux_pl.training.optimizers import made_for


class FlowModule(LightningModule):
    """A denoiser, its objective and its optimizer; nothing else is registered or saved.

    `step` counts optimizer steps of the whole run, also across resumption, whatever Lightning counts.
    `settled` is False from a step's first change until weights, averages and log all stand at `step`: only
    settled steps may be saved. `measured` is what the last micro-batch found, for the log to average. A gradient
    whose norm is above `clip` is scaled down to it; None: the norm is only measured.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        objective: FlowObjective,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        schedule: Callable[[int], float],
        start_step: int = 0,
        clip: float | None = 1.0,
        guard: NonFiniteGuard | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.objective, self.optimizer, self.schedule = objective, optimizer, schedule
        self.start_step, self.clip, self.guard = start_step, clip, guard
        self.step, self.settled = start_step, True
        self.measured: dict[str, Tensor] = {}

    def training_step(self, batch: Batch, _: int) -> Tensor:
        # Dropout inside a network draws from torch's own generator: so that too is a function of the step.
        torch.manual_seed(rng.derive(self.objective.seed, "dropout", int(batch.sample_ids[0]), self.step))
        terms = self.objective.loss(self.denoiser, batch, self.step)
        loss = torch.stack(list(terms.values())).sum()
        self.measured = {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}
        return loss

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.settled = False

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's step, counted once; `training_step` and the backward pass run inside it."""
        super().optimizer_step(*args, **kwargs)
        self.step += 1

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        # Not the trainer's: with bf16-mixed it refuses every fused optimizer.
        trained = [p for p in self.denoiser.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in trained])
        if self.clip is not None:
            nn.utils.clip_grads_with_norm_(trained, self.clip, norm)
        self.measured["gradient_norm"] = norm
        if self.guard is not None:
            self.guard.judge(optimizer, norm, self.step)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = made_for(self.denoiser, self.optimizer)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: self.schedule(s + self.start_step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
