"""Stops a run where nothing is lost by it, and saves the step it stands at, also when a step fails."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tinyflux_pl.core import interruption
from tinyflux_pl.core.errors import CheckpointMismatch, DiskFull, Interrupted
from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule


class Preemption(Callback):
    """Meets a request to stop after an optimizer step, and saves that step before the run ends early.

    It saves whatever ends the run, a request or an error, as long as the step is settled and finite and the
    disk is not what failed. Placed after the callbacks that settle a step, before those that work with it.
    """

    def __init__(self, checkpoints: CheckpointSchedule) -> None:
        self.checkpoints = checkpoints
        self._seen = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = pl_module.step
        require_one_step(trainer, pl_module)
        interruption.claim()  # Lightning has set handlers of its own, which neither save nor end the run soon
        poll(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if pl_module.step != self._seen:
            self._seen = pl_module.step
            poll(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # First, so that what kept an earlier save from the disk is not told as the failure of this one.
        self.checkpoints.on_exception(trainer, pl_module, exception)
        taken = pl_module.step > pl_module.start_step
        if taken and pl_module.settled and not isinstance(exception, DiskFull):
            try:
                self.checkpoints.save_now(trainer, pl_module)
            except Exception as failure:  # told beside the error that ended the run, not in its place
                print(f"step {pl_module.step} could not be saved: {failure}", file=sys.stderr)
        if isinstance(exception, Interrupted) and exception.everywhere:
            trainer.strategy.barrier()  # a launcher kills the ranks that are left, the one that writes too


def require_one_step(trainer: Trainer, pl_module: LightningModule) -> None:
    """Raise CheckpointMismatch on every rank unless all begin at the same step."""
    if trainer.world_size == 1:
        return
    steps = torch.tensor([-pl_module.step, pl_module.step], device=trainer.strategy.root_device)
    torch.distributed.all_reduce(steps, torch.distributed.ReduceOp.MAX)
    least, most = -int(steps[0]), int(steps[1])
    if least != most:
        raise CheckpointMismatch(
            f"the ranks begin at different steps, from step {least} to step {most}",
            where=f"rank {trainer.global_rank}, at step {pl_module.step}",
            cure="every rank has to see the run's folder as the first does: paths.outputs on a disk that all share",
        )


def poll(trainer: Trainer) -> None:
    """Raise Interrupted on every rank if one of them was asked to stop: every rank must call it at the same place.

    The hosts ask each other, so that none of them waits for what its GPU still has to do.
    """
    if trainer.world_size > 1:
        asked = torch.tensor(interruption.asked())
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX, _hosts(torch.distributed.group.WORLD))
        if int(asked):
            interruption.ask(int(asked))
    try:
        interruption.poll()
    except Interrupted as stop:
        stop.everywhere = trainer.world_size > 1
        raise


@cache
def _hosts(world: Any) -> Any:
    """The ranks of `world` as processes that talk without a GPU; all of them make it at their first call."""
    return world if torch.distributed.get_backend(world) == "gloo" else torch.distributed.new_group(backend="gloo")
