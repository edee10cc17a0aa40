"""What training measures, averaged between log points and written under the run's own step."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from tinyflux_pl.training.throughput import Throughput


class LoggedMetrics(Callback):
    """Every `every_steps` steps: the mean of each measured value, learning rates, and images a second.

    Sums stay on the device, so that nothing waits for it between two log points, and go into checkpoints, so
    that a run that was cut in the middle of a window logs the same mean. A step's value is the mean of its
    micro-batches and of all ranks; a step that the guard refused counts for nothing but itself.
    Placed right after the averages: once it has taken up a step, the step is settled. A row that a logger could
    not write is part of what is saved then, and is written first by the run that goes on.
    """

    def __init__(self, every_steps: int, throughput: Throughput) -> None:
        self.every_steps, self.throughput = every_steps, throughput
        self.latest: dict[str, float] = {}  # the last row
        self._seen = 0
        self._names: list[str] = []
        self._sums = self._steps = torch.zeros(())
        self._micro_batches: list[dict[str, Tensor]] = []
        self._rates: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = pl_module.step
        if self._names and self._due():
            self._write(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]  # by the log, they are the next step's

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._micro_batches.append(pl_module.measured)
        if pl_module.step != self._seen:
            self._seen = pl_module.step
            self._take_up(pl_module, trainer.world_size)
            pl_module.settled = True
            if self._due():
                self._write(trainer, pl_module)

    def _due(self) -> bool:
        return bool(self.every_steps) and self._seen % self.every_steps == 0

    def state(self) -> dict[str, Any]:
        """The window so far: tensors and plain types."""
        return {"names": self._names, "sums": self._sums, "steps": self._steps, "rates": self._rates}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._names, self._sums, self._steps = list(state["names"]), state["sums"], state["steps"]
        self._rates = list(state.get("rates", []))  # which checkpoints of earlier versions lack

    @torch.no_grad()
    def _take_up(self, pl_module: LightningModule, world: int) -> None:
        found, self._micro_batches = self._micro_batches, []
        names = list(dict.fromkeys(name for values in found for name in values))
        values = torch.stack([torch.stack([v[name] for v in found if name in v]).float().mean() for name in names])
        if world > 1:
            torch.distributed.all_reduce(values)
            values /= world
        taken = torch.ones((), device=values.device) if pl_module.guard is None else pl_module.guard.taken.float()
        if names != self._names:  # the first step, or one of a run resumed with other terms
            self._names, self._sums, self._steps = names, torch.zeros_like(values), torch.zeros_like(taken)
        self._sums = self._sums.to(values.device) + torch.where(taken > 0, values, 0)
        self._steps = self._steps.to(values.device) + taken

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        means = (self._sums / self._steps).tolist()
        self.latest = {f"train/{name}": value for name, value in zip(self._names, means, strict=True)}
        self.latest |= {f"train/learning_rate_{i}": rate for i, rate in enumerate(self._rates)}
        if pl_module.guard is not None:
            self.latest["train/skipped_steps"] = float(pl_module.guard.skipped)
        self.latest["train/images_per_second"] = self.throughput.since_last_asked()
        for logger in trainer.loggers:
            logger.log_metrics(self.latest, step=pl_module.step)
        self._names = []
