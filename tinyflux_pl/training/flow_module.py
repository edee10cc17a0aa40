"""The LightningModule of every denoiser, and the protocol between its step and the callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from tinyflux_pl.core import rng
from tinyflux_pl.core.types import Batch
from tinyflux_pl.methods.full import Full
from tinyflux_pl.methods.method import Method
from tinyflux_pl.objectives.flow import FlowObjective
from tinyflux_pl.training.optimizers import build_optimizer


class StepGuard(Protocol):
    """Decides on the device whether an optimizer step is accepted (training.nonfinite_guard).

    `step_accepted` is a bool scalar on the device, None before the first step; `skipped` counts
    rejected steps there; `rejecting` is True while the newest step known to the host was rejected.
    """

    step_accepted: Tensor | None
    skipped: Tensor

    @property
    def rejecting(self) -> bool: ...
    def check_step(self, optimizer: torch.optim.Optimizer, norm: Tensor, step: int) -> None: ...


class FlowModule(LightningModule):
    """A denoiser, its objective and its optimizer; nothing else is registered or saved.

    `step` counts optimizer steps of the whole run, across resumption, whatever Lightning counts.
    A gradient whose norm is above `clip` is scaled down to it; None: the norm is only measured.
    `method` is the one that the denoiser was prepared by.

    The step protocol, which callbacks rely on; one optimizer step runs in this order:

    1. `training_step`, once a micro-batch: `step_metrics` becomes the loss and its terms.
    2. `on_before_optimizer_step`: `step_complete` becomes False.
    3. `configure_gradient_clipping`: `step_metrics` gains `gradient_norm`; the guard's `check_step`
       decides whether the step changes anything.
    4. `optimizer_step`: weights change, then `step` grows by 1, also for a rejected step.
    5. `on_train_batch_end` of each callback, once a micro-batch, and from it `on_step` of each
       StepCallback, once a step. AveragedWeights moves the averages to `step`, then LoggedMetrics
       adds `step_metrics` and sets `step_complete`.

    While `step_complete` is False, weights, averages and log disagree about the step. A checkpoint
    is written only when it is True.
    """

    optimizer_names: tuple[str, ...] = ()  # a single one has no name

    def __init__(
        self,
        denoiser: nn.Module,
        objective: FlowObjective,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        schedule: Callable[[int], float],
        start_step: int = 0,
        clip: float | None = 1.0,
        guard: StepGuard | None = None,
        method: Method | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.objective = objective
        self.optimizer = optimizer
        self.schedule = schedule
        self.start_step = start_step
        self.clip = clip
        self.guard = guard
        self.method: Method = method or Full()
        self.step = start_step
        self.step_complete = True
        self.step_metrics: dict[str, Tensor] = {}

    @property
    def network(self) -> nn.Module:
        """The denoiser: what callbacks average, save, validate and draw from."""
        return self.denoiser

    def training_step(self, batch: Batch, _: int) -> Tensor:
        # Dropout inside a network uses torch's global generator: seed it as a function of the step.
        first_id = int(batch.sample_ids[0])
        torch.manual_seed(rng.derive(self.objective.seed, "dropout", first_id, self.step))
        terms = self.objective.loss(self.denoiser, batch, self.step)
        loss = torch.stack(list(terms.values())).sum()
        self.step_metrics = {"loss": loss.detach()}
        self.step_metrics |= {name: term.detach() for name, term in terms.items()}
        for expert, value in self.objective.unweighted.items():
            self.step_metrics[f"{expert}_unweighted"] = value
        if self.objective.velocity_share is not None:
            self.step_metrics["velocity_share"] = self.objective.velocity_share
        return loss

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.step_complete = False

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's step, counted once; `training_step` and the backward pass run inside it."""
        super().optimizer_step(*args, **kwargs)
        self.step += 1

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any
    ) -> None:
        # Not the trainer's clipping: with bf16-mixed it refuses every fused optimizer.
        parameters = [p for p in self.denoiser.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if self.clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
        self.step_metrics["gradient_norm"] = norm
        if self.guard is not None:
            self.guard.check_step(optimizer, norm, self.step)

    def configure_optimizers(self) -> dict[str, Any]:
        rates = self.method.rates(self.denoiser)
        optimizer = build_optimizer(self.denoiser, self.optimizer, rates)
        start = self.start_step
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda steps: self.schedule(steps + start)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
