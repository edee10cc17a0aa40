"""Training metrics, averaged between log points and logged under the run's own step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from tinyflux_pl.core import metric_names as names
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.measures import Measure, Window, module_gradient_norms
from tinyflux_pl.training.metric_log import log_scalars
from tinyflux_pl.training.stateful_callback import StatefulCallback
from tinyflux_pl.training.step_callback import StepCallback
from tinyflux_pl.training.throughput import Throughput


class LoggedMetrics(StepCallback, StatefulCallback):
    """Log means of step metrics, learning rates and further measures every `every_steps` steps.

    Also images per second, gradient norms by module, and what `measures` give. Sums stay on the
    device, so that the host waits only at log points, and go into checkpoints, so that a run cut in
    the middle of a window logs the same mean. A step's value is the mean over its micro-batches and
    all ranks; rejected steps do not count in the means. Runs after the averages: once it has added
    a step, `step_complete` is True. A row that a logger failed to write is part of the state saved
    then, and a resumed run writes it first.
    """

    checkpoint_key = "LoggedMetrics"

    def __init__(
        self, every_steps: int, throughput: Throughput, measures: Sequence[Measure] = ()
    ) -> None:
        self.every_steps = every_steps
        self.throughput = throughput
        self.measures = measures
        self.latest: dict[str, float] = {}  # the last row
        self._names: list[str] = []
        self._sums = self._steps = torch.zeros(())
        self._micro_batches: list[dict[str, Tensor]] = []
        self._rates: dict[str, float] = {}  # by parameter group
        self._module_norms: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self._names and self._due(pl_module.step):
            self._write(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: FlowModule, optimizer: Any
    ) -> None:
        # Read here: at the log point the scheduler has already set the next step's rates.
        prefix = ""
        if pl_module.optimizer_names:
            prefix = f"{pl_module.optimizer_names[trainer.optimizers.index(optimizer)]}_"
        for index, group in enumerate(optimizer.param_groups):
            self._rates[f"{prefix}{index}"] = float(group["lr"])
        if self._due(pl_module.step + 1):  # gradients are not clipped yet
            self._module_norms = module_gradient_norms(pl_module.network)

    def on_train_batch_end(self, trainer: Trainer, pl_module: FlowModule, *_: Any) -> None:
        self._micro_batches.append(pl_module.step_metrics)
        super().on_train_batch_end(trainer, pl_module)

    def on_step(self, trainer: Trainer, pl_module: FlowModule) -> None:
        self._add_step(pl_module, trainer.world_size)
        pl_module.step_complete = True
        if self._due(pl_module.step):
            self._write(trainer, pl_module)

    def _due(self, step: int) -> bool:
        return bool(self.every_steps) and step % self.every_steps == 0

    def state(self) -> dict[str, Any]:
        return {
            "names": self._names,
            "sums": self._sums,
            "steps": self._steps,
            "rates": self._rates,
            "module_norms": self._module_norms,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._names = list(state["names"])
        self._sums = state["sums"]
        self._steps = state["steps"]
        rates = state.get("rates", {})  # absent from the oldest checkpoints, then a list
        self._rates = rates if isinstance(rates, dict) else dict(_numbered(rates))
        self._module_norms = dict(state.get("module_norms", {}))

    @torch.no_grad()
    def _add_step(self, pl_module: FlowModule, world: int) -> None:
        metrics, self._micro_batches = self._micro_batches, []
        keys = list(dict.fromkeys(name for values in metrics for name in values))
        means = []
        for name in keys:
            of_micro_batches = torch.stack([values[name] for values in metrics if name in values])
            means.append(of_micro_batches.float().mean())
        values = torch.stack(means)
        if world > 1:
            torch.distributed.all_reduce(values)
            values /= world
        if pl_module.guard is None:
            accepted = torch.ones((), device=values.device)
        else:
            accepted = pl_module.guard.step_accepted.float()
        if keys != self._names:  # the first step, or a run resumed with other terms
            self._names = keys
            self._sums = torch.zeros_like(values)
            self._steps = torch.zeros_like(accepted)
        # where, not a product: 0 times NaN is NaN
        self._sums = self._sums.to(values.device) + torch.where(accepted > 0, values, 0)
        self._steps = self._steps.to(values.device) + accepted

    def _write(self, trainer: Trainer, pl_module: FlowModule) -> None:
        window = Window(self.every_steps, self.throughput.rate_since_last_call())
        means = (self._sums / self._steps).unbind()
        row: dict[str, Any] = {
            names.TERM.of(term=name): value for name, value in zip(self._names, means, strict=True)
        }
        row |= {names.LEARNING_RATE.of(group=group): rate for group, rate in self._rates.items()}
        if pl_module.guard is not None:
            row[names.SKIPPED.pattern] = pl_module.guard.skipped
        for module, norm in self._module_norms.items():
            row[names.MODULE_GRADIENT_NORM.of(module=module)] = norm
        row[names.IMAGES_PER_SECOND.pattern] = window.images_per_second
        for measure in self.measures:
            row.update(measure(pl_module, window))
        self.latest = _read(row)
        log_scalars(trainer, self.latest, pl_module.step)
        self._names = []


def _numbered(rates: Sequence[float]) -> Iterable[tuple[str, float]]:
    return ((str(index), rate) for index, rate in enumerate(rates))


def _read(row: Mapping[str, float | Tensor]) -> dict[str, float]:
    """The row as numbers: the host waits for the device once."""
    tensors = [name for name, value in row.items() if isinstance(value, Tensor)]
    if not tensors:
        return {name: float(value) for name, value in row.items()}
    device = row[tensors[0]].device
    stacked = torch.stack([row[name].detach().float().to(device) for name in tensors])
    return {**row, **dict(zip(tensors, stacked.tolist(), strict=True))}
