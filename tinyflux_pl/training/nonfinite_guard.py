"""Skip optimizer steps with a non-finite or exploding loss or gradient.

The decision stays on the device; it is reported at log points.
"""

from __future__ import annotations

import logging
import shlex
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError, NumericsError
from tinyflux_pl.core.interpreter import command
from tinyflux_pl.core.types import Batch
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.optimizers import skip_step_if
from tinyflux_pl.training.replay_bundle import ReplayBundle, load_batches, named_tensors
from tinyflux_pl.training.running_median import RunningMedian
from tinyflux_pl.training.saved_tensors import saved_tensors
from tinyflux_pl.training.skipped_steps import SkippedSteps, Verdict
from tinyflux_pl.training.stateful_callback import StatefulCallback

log = logging.getLogger(__name__)
# Steps between two reads of the verdicts: without a bound they would pile up, and nothing would
# stop a run whose every step is rejected.
MAX_CHECK_INTERVAL = 64
# Micro-batches of a step, in bytes, that stay on the device for a bundle; larger ones are read
# again.
MAX_BATCH_BYTES = 2**26


class NonFiniteGuard(StatefulCallback):
    """Rejects a step whose mean loss or gradient norm is not finite, or lies above its limit.

    The limit is a factor times the median of the last 64 accepted steps, from `warmup` accepted
    steps on; a factor of None rejects only what is not finite. A rejected step changes no weight,
    no momentum and no average; the learning rate, the step count and the order of samples continue
    as if it had been accepted. The device is read only every `log_every` steps (at most 64), when a
    checkpoint is written, and at the end. There the skipped steps are reported, and if there are
    too many, the run stops with NumericsError and a replay bundle.
    """

    checkpoint_key = "NonFiniteGuard"

    def __init__(
        self,
        bundle: ReplayBundle,
        log_every: int = 25,
        warmup: int = 32,
        loss_factor: float | None = 20.0,
        norm_factor: float | None = 10.0,
        max_consecutive: int = 10,
        max_recent: int = 50,
    ) -> None:
        factors = [torch.inf if f is None else float(f) for f in (loss_factor, norm_factor)]
        if min(factors) <= 1:
            raise ConfigError(
                "a factor of 1 or less rejects half of all steps",
                where="callbacks.guard",
                cure="a number well above 1; null rejects only what is not finite",
            )
        self.bundle = bundle
        self.warmup = warmup
        self.check_interval = min(log_every or MAX_CHECK_INTERVAL, MAX_CHECK_INTERVAL)
        self.factors = torch.tensor(factors)
        skipped_file = bundle.run_dir / "skipped.jsonl"
        self.record = SkippedSteps(skipped_file, max_consecutive, max_recent)
        self.median = RunningMedian(rows=2)
        self.skipped = torch.zeros(())
        self.step_accepted: Tensor | None = None
        self._loss: Tensor | None = None  # sum over the micro-batches so far; None between steps
        self._ids: list[int] = []  # samples of the current step
        self._batches: list[Batch] | None = []  # its micro-batches; None if they are too large
        self._bytes = 0
        self._window: list[tuple[int, list[int], Tensor, str]] = []
        self._world = 1

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        # Lightning gives a scaler only to the plugin of 16-mixed.
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise ConfigError(
                "float16's loss scaler skips steps on its own",
                where="guard",
                cure="hardware.precision=bf16-mixed, or 32-true",
            )
        if any(isinstance(optimizer, torch.optim.LBFGS) for optimizer in trainer.optimizers):
            raise ConfigError(
                "LBFGS evaluates several losses a step",
                where="guard",
                cure="choose another optimizer",
            )
        self._data = trainer.datamodule
        self._world = trainer.world_size
        self._accumulation = trainer.accumulate_grad_batches
        self._loss = None
        self._window = []
        device = pl_module.device
        self.factors = self.factors.to(device)
        self.skipped = self.skipped.to(device)
        self.median.to(device)
        if trainer.is_global_zero:
            self.record.forget_after(pl_module.step)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: FlowModule, batch: Batch, _: int
    ) -> None:
        if self._loss is None:
            self._ids, self._batches, self._bytes = [], [], 0
        self._ids += batch.sample_ids.tolist()  # sample ids never leave the host
        self._bytes += sum(tensor.nbytes for tensor in named_tensors(batch).values())
        if self._batches is not None and (self._bytes <= MAX_BATCH_BYTES or not self._batches):
            self._batches = [*self._batches, batch]
        else:
            self._batches = None

    def on_before_backward(self, trainer: Trainer, pl_module: FlowModule, loss: Tensor) -> None:
        # Lightning has divided the loss by the number of micro-batches.
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()

    @torch.no_grad()
    def check_step(
        self, optimizer: torch.optim.Optimizer, norm: Tensor, step: int, name: str = ""
    ) -> None:
        """Accept or reject the optimizer's next step by its loss and gradient norm (scalars).

        `name` tells several optimizers apart in the record.
        """
        measured = torch.stack([self._loss, norm]).float()
        if self._world > 1:  # all ranks must decide alike
            torch.distributed.all_reduce(measured)
            measured /= self._world
        limits = self.median.limits(self.factors, self.warmup)
        self.step_accepted = (measured.isfinite() & (measured.abs() <= limits)).all()
        self.median.push(measured.abs(), self.step_accepted)
        self.skipped = self.skipped + ~self.step_accepted
        skip_step_if(optimizer, (~self.step_accepted).float())
        self._window.append((step, self._ids, torch.cat([measured, limits]), name))
        self._loss = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: FlowModule, *_: Any) -> None:
        if self._loss is not None:  # within an accumulated step
            return
        if pl_module.step % self.check_interval == 0:
            self._report(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: FlowModule) -> None:
        self._report(trainer, pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: FlowModule, exception: BaseException
    ) -> None:
        try:
            self._read_verdicts(trainer.is_global_zero)
        except RuntimeError as error:  # a failed device returns nothing
            log.warning("which of the last steps were skipped cannot be read: %s", error)

    @property
    def rejecting(self) -> bool:
        """True if the newest step was rejected, as far as the host knows."""
        return self.record.consecutive > 0

    def state(self) -> dict[str, Any]:
        self._read_verdicts()
        return {
            "median": self.median.state(),
            "skipped": self.skipped.cpu(),
            "record": self.record.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.median.restore(state["median"])
        self.skipped = state["skipped"].to(self.skipped.device)
        self.record.restore(state["record"])

    def _read_verdicts(self, write: bool = True) -> None:
        """Fetch verdicts since the last call: the only synchronisation with the device."""
        window, self._window = self._window, []
        if not window:
            return
        rows = torch.stack([numbers for _, _, numbers, _ in window]).tolist()
        verdicts = [
            self._with_all_ids(Verdict(step, ids, *row, name))
            for (step, ids, _, name), row in zip(window, rows, strict=True)
        ]
        self.record.add(verdicts, write)

    def _with_all_ids(self, verdict: Verdict) -> Verdict:
        """The verdict with the sample ids of every rank: any of them may be the cause."""
        if not verdict.reasons or self._world == 1:
            return verdict
        batches = self._load_batches(verdict.step)
        ids = [sample_id for batch in batches for sample_id in batch.sample_ids.tolist()]
        return replace(verdict, sample_ids=ids)

    def _report(self, trainer: Trainer, pl_module: FlowModule) -> None:
        self._read_verdicts(trainer.is_global_zero)
        if not self.record.excess:
            return
        last, excess = self.record.last, self.record.excess
        self.record.reset_counts()
        # Micro-batches are kept of the newest step only: those of a window could take any memory.
        is_newest = last.step == pl_module.step - 1
        batches = self._batches if is_newest and self._world == 1 else None
        folder = self.bundle.folder(last.step)
        if trainer.is_global_zero:
            read_again = batches is None
            self.bundle.write(
                saved_tensors(pl_module, pl_module.network.state_dict()),
                pl_module.objective.null_text,
                self._load_batches(last.step) if batches is None else batches,
                last,
                moved=not is_newest,
                read_again=read_again,
                targets=pl_module.objective.velocity_targets,
            )
        trainer.strategy.barrier()
        replay = f"{command('train.py')} replay={shlex.quote(str(folder))}"
        raise NumericsError(
            f"{excess}: {'; '.join(last.reasons)}. None of them changed weights or averages",
            where=str(self.record.file),
            cure=f"find the cause: {replay}",
        )

    def _load_batches(self, step: int) -> list[Batch]:
        return load_batches(self._data, step, self._accumulation, self._world)
