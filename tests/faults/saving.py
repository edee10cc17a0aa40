"""A run that only saves, and the invariants of its folder after any fault."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from torch import nn

from tests.faults.forks import Child, Ended
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.directory import Checkpoint
from tinyflux_pl.methods.full import Full
from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
from tinyflux_pl.training.ema import AveragedWeights

SIDE = 512  # a square matrix of fp32: 1 MiB, four times in a checkpoint


class Saver:
    """The project's callback on a module whose every number is the step, without a trainer."""

    is_global_zero, callbacks, guard = True, (), None
    optimizer_names = ()
    method = Full()

    def __init__(self, folder: Path, background: bool, keep: int = 2, side: int = SIDE) -> None:
        self.network = self.denoiser = nn.Linear(side, side, bias=False)
        self.step = 0
        self.optimizers = [torch.optim.AdamW(self.denoiser.parameters())]
        self.average = AveragedWeights()
        self.schedule = CheckpointSchedule(
            folder, {"name": "x"}, self.average, 1, 1, 0, keep, background
        )

    def save(self, step: int) -> None:
        """As at the end of an optimizer step."""
        self.step = step
        weight = self.denoiser.weight
        weight.data.fill_(step)
        self.average.averages = {"weight": torch.full_like(weight, step + 0.5)}
        moments = {name: torch.full_like(weight, step) for name in ("exp_avg", "exp_avg_sq")}
        self.optimizers[0].state[weight] = {"step": torch.tensor(float(step)), **moments}
        self.schedule.on_train_batch_end(self, self)

    def finish(self) -> Path | None:
        return self.schedule.last


def save_for_ever(folder: Path, background: bool, side: int = SIDE) -> Callable[[], None]:
    """Work for a child: go on from what is there, and print each save that was accepted."""

    def work() -> None:
        checkpoint, _ = directory.newest_valid(folder)
        saver = Saver(folder, background, side=side)
        for step in count(checkpoint.step + 1 if checkpoint else 1):
            saver.save(step)
            print(f"accepted {step}")

    return work


def killed_while_saving(
    folder: Path, background: bool, log: Path, chance: random.Random, seconds: float
) -> Ended:
    """SIGKILL a saving child up to `seconds` after one of its first three saves, or before."""
    log.write_text("")  # a child killed at once says nothing; it must not seem to repeat another
    saves = chance.randrange(4)
    with Child(save_for_ever(folder, background), log) as child:
        while log.read_text().count("accepted") < saves and child.alive():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, seconds))
        return child.kill()


def accepted(printed: str) -> int:
    """The last save that a child reported as accepted; 0 for none."""
    return max(map(int, re.findall(r"accepted (\d+)", printed)), default=0)


def judged(folder: Path) -> Checkpoint:
    """The newest checkpoint, after asserting that no file is truncated and numbers fit the step."""
    checkpoint, rejected = directory.newest_valid(folder)
    assert checkpoint is not None and not rejected, rejected
    step, state = checkpoint.step, checkpoint.state()
    moments = state["optimizer"]["state"][0]
    assert state["step"] == step
    for tensor, value in (
        (checkpoint.weights("raw")["weight"], step),
        (checkpoint.weights("averaged")["weight"], step + 0.5),
        (moments["exp_avg"], step),
        (moments["exp_avg_sq"], step),
    ):
        assert bool((tensor == value).all()), (
            f"{checkpoint.path.name} holds the numbers of another step"
        )
    return checkpoint


def staged(folder: Path) -> list[str]:
    """Names that a killed writer left."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
