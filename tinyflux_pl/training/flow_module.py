"""The LightningModule of every denoiser: objective in, loss out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from tinyflux_pl.core.types import Batch
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.objectives.validation import FixedGrid


class FlowModule(LightningModule):
    """A denoiser, its objective and its optimizer; nothing else is registered or saved.

    `step` counts optimizer steps of the whole run, also across resumption.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        objective: FlowObjective,
        grid: FixedGrid,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        schedule: Callable[[int], float],
        start_step: int = 0,
        clip: float = 1.0,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.objective, self.grid = objective, grid
        self.optimizer, self.schedule = optimizer, schedule
        self.start_step, self.clip = start_step, clip

    @property
    def step(self) -> int:
        """Optimizer steps taken by the run so far."""
        return self.start_step + self.trainer.global_step

    def training_step(self, batch: Batch, _: int) -> Tensor:
        terms = self.objective.loss(self.denoiser, batch, self.step)
        loss = torch.stack(list(terms.values())).sum()
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()}, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        for name, value in self.grid.errors(self.denoiser, batch).items():
            self.log(name, value, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch))

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        # Not the trainer's: with bf16-mixed it refuses every fused optimizer.
        norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), self.clip)
        self.log("train/gradient_norm", norm)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.optimizer(self.denoiser)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: self.schedule(s + self.start_step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
