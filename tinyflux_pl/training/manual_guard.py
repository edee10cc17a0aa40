"""The guard of a module with several optimizers: each is checked against its own limits."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from tinyflux_pl.core.types import Batch
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.nonfinite_guard import NonFiniteGuard
from tinyflux_pl.training.running_median import RunningMedian


class ManualGuard(NonFiniteGuard):
    """Checks each optimizer by the median of its own loss and norm, or by finiteness alone.

    A critic's gradient grows as it learns to tell pictures apart, far beyond any multiple of its
    first norms: only clipping bounds it. A step counts as accepted, for averages and logged means,
    where every optimizer's was; an optimizer is skipped for its own reasons alone.
    """

    def __init__(self, *arguments: Any, accumulation: int = 1, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.accumulation = accumulation
        self.medians: defaultdict[str, RunningMedian] = defaultdict(lambda: RunningMedian(rows=2))
        self._judged = -1  # the step of `step_accepted`
        self._begun = -1  # the step of the micro-batches that are kept

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._accumulation = self.accumulation

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: FlowModule, batch: Batch, batch_idx: int
    ) -> None:
        # None tells the base class that a step begins; a number, that one is under way.
        self._loss = None if pl_module.step != self._begun else torch.zeros(())
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._begun = pl_module.step
        self._loss = torch.zeros(())

    def on_before_backward(self, trainer: Trainer, pl_module: FlowModule, loss: Tensor) -> None:
        """The module passes each optimizer's loss to `check_optimizer_step`."""

    def check_optimizer_step(
        self,
        name: str,
        optimizer: torch.optim.Optimizer,
        loss: Tensor,
        norm: Tensor,
        step: int,
        *,
        limited: bool = True,
    ) -> None:
        """Accept or reject the next step of the optimizer of that name.

        Without `limited` only a loss or norm that is not finite rejects it.
        """
        earlier = self.step_accepted if self._judged == step else None
        self.median, self._loss, self._judged = self.medians[name], loss, step
        self.median.to(loss.device)
        factors = self.factors
        if not limited:
            self.factors = torch.full_like(factors, torch.inf)
        self.check_step(optimizer, norm, step, name)
        self.factors = factors
        if earlier is not None:
            self.step_accepted = self.step_accepted & earlier

    def state(self) -> dict[str, Any]:
        medians = {name: median.state() for name, median in self.medians.items()}
        return {**super().state(), "medians": medians}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        for name, median in state["medians"].items():
            self.medians[name].restore(median)
