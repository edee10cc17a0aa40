"""Stop a run between steps on request, and save its current step, whatever ends it."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import torch
from lightning.pytorch import Trainer

from tinyflux_pl.core import interruption
from tinyflux_pl.core.errors import CheckpointMismatch, DiskFull, Interrupted
from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
from tinyflux_pl.training.flow_module import FlowModule
from tinyflux_pl.training.step_callback import StepCallback


class Preemption(StepCallback):
    """Acts on a request to stop after an optimizer step, and saves that step before the run ends.

    It also saves when an error ends the run, as long as the step is complete and finite and the
    error is not a full disk. Runs after the callbacks that complete a step, before those that use
    it.
    """

    def __init__(self, checkpoints: CheckpointSchedule) -> None:
        self.checkpoints = checkpoints

    def on_train_start(self, trainer: Trainer, pl_module: FlowModule) -> None:
        super().on_train_start(trainer, pl_module)
        require_same_step(trainer, pl_module)
        # Lightning has set signal handlers that neither save nor end the run soon.
        interruption.reinstall_handlers()
        poll(trainer)

    def on_step(self, trainer: Trainer, pl_module: FlowModule) -> None:
        poll(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: FlowModule, exception: BaseException
    ) -> None:
        # First, so that the failure of an earlier save is not reported as the failure of this one.
        self.checkpoints.on_exception(trainer, pl_module, exception)
        took_a_step = pl_module.step > pl_module.start_step
        if took_a_step and pl_module.step_complete and not isinstance(exception, DiskFull):
            try:
                self.checkpoints.save_now(trainer, pl_module)
            except Exception as failure:  # printed, so that `exception` is still the one raised
                print(f"step {pl_module.step} could not be saved: {failure}", file=sys.stderr)
        if isinstance(exception, Interrupted) and exception.everywhere:
            # A launcher kills the remaining ranks once one exits, even one that still writes.
            trainer.strategy.barrier()


def require_same_step(trainer: Trainer, pl_module: FlowModule) -> None:
    """Raise CheckpointMismatch on every rank unless all start at the same step."""
    if trainer.world_size == 1:
        return
    steps = torch.tensor([-pl_module.step, pl_module.step], device=trainer.strategy.root_device)
    torch.distributed.all_reduce(steps, torch.distributed.ReduceOp.MAX)
    least, most = -int(steps[0]), int(steps[1])
    if least != most:
        raise CheckpointMismatch(
            f"the ranks begin at different steps, from step {least} to step {most}",
            where=f"rank {trainer.global_rank}, at step {pl_module.step}",
            cure="every rank must see the same run folder: put paths.outputs on a shared disk",
        )


def poll(trainer: Trainer) -> None:
    """Raise Interrupted on every rank if one was requested to stop; a collective call.

    Ranks communicate over CPU tensors, so that no host waits for its GPU.
    """
    if trainer.world_size > 1:
        requested = torch.tensor(interruption.requested_signal())
        group = _cpu_group(torch.distributed.group.WORLD)
        torch.distributed.all_reduce(requested, torch.distributed.ReduceOp.MAX, group)
        if int(requested):
            interruption.request_stop(int(requested))
    try:
        interruption.poll()
    except Interrupted as stop:
        stop.everywhere = trainer.world_size > 1
        raise


@cache
def _cpu_group(world: Any) -> Any:
    """A gloo group of the ranks of `world`; creating it, at the first call, is collective."""
    if torch.distributed.get_backend(world) == "gloo":
        return world
    return torch.distributed.new_group(backend="gloo")
