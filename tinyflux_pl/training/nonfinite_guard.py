"""No step whose loss or gradient is not finite, or explodes, is taken: decided on the device, told at log points."""

from __future__ import annotations

import logging
import shlex
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError, NumericsError
from tinyflux_pl.core.interpreter import command
from tinyflux_pl.core.types import Batch
from tinyflux_pl.training.optimizers import refuse
from tinyflux_pl.training.replay_bundle import ReplayBundle, batches_of, tensors_of
from tinyflux_pl.training.running_median import RunningMedian
from tinyflux_pl.training.skipped_steps import SkippedSteps, Verdict

log = logging.getLogger(__name__)
APART = 64  # steps between two looks, at most: without them the verdicts would pile up, and nothing would stop a run
HELD = 2**26  # bytes of a step's micro-batches that are kept, on the device, for a bundle; more are read again


class NonFiniteGuard(Callback):
    """Refuses a step whose mean loss or gradient norm is not finite, or lies above its limit.

    The limit is a factor times the median of the last 64 accepted steps, from `warmup` accepted steps on; a
    factor of None leaves only what is not finite. A refused step changes no weight, no momentum and no average;
    the learning rate, the count of steps and the order of samples go on as if it had been taken. Nothing is
    read from the device but every `log_every` steps (64 where that is 0 or more), when a checkpoint is made, and at
    the end: there the skipped steps are told, and there the run stops with NumericsError and a replay bundle if
    they are too many.
    """

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
        factors = [torch.inf if factor is None else float(factor) for factor in (loss_factor, norm_factor)]
        if min(factors) <= 1:
            cure = "a number well above 1; null refuses only what is not finite"
            raise ConfigError("a factor of 1 or less refuses half of all steps", where="callbacks.guard", cure=cure)
        self.bundle, self.warmup = bundle, warmup
        self.every = min(log_every or APART, APART)
        self.factors = torch.tensor(factors)
        self.record = SkippedSteps(bundle.run_dir / "skipped.jsonl", max_consecutive, max_recent)
        self.median = RunningMedian(rows=2)
        self.skipped = torch.zeros(())
        self.taken: Tensor | None = None  # bool scalar: whether the last step was
        self._loss: Tensor | None = None
        self._ids: list[int] = []  # of the present step
        self._batches: list[Batch] | None = []  # the same, unless they are too large
        self._bytes = 0
        self._window: list[tuple[int, list[int], Tensor]] = []
        self._world = 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            cure = "hardware.precision=bf16-mixed, or 32-true"
            raise ConfigError("float16's loss scaler decides for itself which steps to skip", where="guard", cure=cure)
        if any(isinstance(optimizer, torch.optim.LBFGS) for optimizer in trainer.optimizers):
            raise ConfigError("LBFGS asks for several losses a step", where="guard", cure="choose another optimizer")
        self._data, self._world = trainer.datamodule, trainer.world_size
        self._accumulation = trainer.accumulate_grad_batches
        self._loss, self._window = None, []
        device = pl_module.device
        self.factors, self.skipped = self.factors.to(device), self.skipped.to(device)
        self.median.to(device)
        if trainer.is_global_zero:
            self.record.forget_after(pl_module.step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, _: int) -> None:
        if self._loss is None:
            self._ids, self._batches, self._bytes = [], [], 0
        self._ids += batch.sample_ids.tolist()  # which never leave the host
        self._bytes += sum(tensor.nbytes for tensor in tensors_of(batch).values())
        kept = self._batches is not None and (self._bytes <= HELD or not self._batches)
        self._batches = [*self._batches, batch] if kept else None

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        # Lightning has divided it by the number of micro-batches
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()

    @torch.no_grad()
    def judge(self, optimizer: torch.optim.Optimizer, norm: Tensor, step: int) -> None:
        """Decide whether the optimizer's coming step is taken, from its loss and its gradient's norm (scalars)."""
        found = torch.stack([self._loss, norm]).float()
        if self._world > 1:  # what one rank finds, all must refuse
            torch.distributed.all_reduce(found)
            found /= self._world
        limits = self.median.limits(self.factors, self.warmup)
        self.taken = (found.isfinite() & (found.abs() <= limits)).all()
        self.median.push(found.abs(), self.taken)
        self.skipped = self.skipped + ~self.taken
        refuse(optimizer, (~self.taken).float())
        self._window.append((step, self._ids, torch.cat([found, limits])))
        self._loss = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._loss is not None:  # in the middle of a step
            return
        if pl_module.step % self.every == 0:
            self._tell(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        try:
            self._read(trainer.is_global_zero)
        except RuntimeError as error:  # a device that has failed gives nothing back
            log.warning("which of the last steps were skipped cannot be read: %s", error)

    @property
    def refusing(self) -> bool:
        """Whether the newest step was refused, as far as has been read."""
        return self.record.consecutive > 0

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to decide as this one would: tensors and plain types."""
        self._read()
        return {"median": self.median.state(), "skipped": self.skipped.cpu(), "record": self.record.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.median.restore(state["median"])
        self.skipped = state["skipped"].to(self.skipped.device)
        self.record.restore(state["record"])

    def _read(self, write: bool = True) -> None:
        """Fetch the verdicts since the last time: the one place where the host waits for the device."""
        window, self._window = self._window, []
        if not window:
            return
        rows = torch.stack([facts for _, _, facts in window]).tolist()
        verdicts = [Verdict(step, ids, *row) for (step, ids, _), row in zip(window, rows, strict=True)]
        self.record.add([self._with_all_ids(verdict) for verdict in verdicts], write)

    def _with_all_ids(self, verdict: Verdict) -> Verdict:
        """The verdict with the samples of every rank: this one's own do not tell whose loss it was."""
        if not verdict.reasons or self._world == 1:
            return verdict
        stored = self._stored(verdict.step)
        return replace(verdict, sample_ids=[i for batch in stored for i in batch.sample_ids.tolist()])

    def _tell(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read(trainer.is_global_zero)
        if not self.record.excess:
            return
        last, excess = self.record.last, self.record.excess
        self.record.forgive()
        # Of steps before the newest no batch is kept: a window of them would take as much memory as it pleased.
        newest = last.step == pl_module.step - 1
        held = self._batches if newest and self._world == 1 else None
        folder = self.bundle.folder(last.step)
        if trainer.is_global_zero:
            weights, null_text = pl_module.denoiser.state_dict(), pl_module.objective.null_text
            batches = self._stored(last.step) if held is None else held
            self.bundle.write(weights, null_text, batches, last, moved=not newest, read_again=held is None)
        trainer.strategy.barrier()
        raise NumericsError(
            f"{excess}: {'; '.join(last.reasons)}. None of them changed weights or averages",
            where=str(self.record.file),
            cure=f"see where it comes from: {command('train.py')} replay={shlex.quote(str(folder))}",
        )

    def _stored(self, step: int) -> list[Batch]:
        return batches_of(self._data, step, self._accumulation, self._world)
