"""Checkpoints by step and by epoch, a bounded number of each kind."""

import torch
from torch import nn

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule


class Trainer:
    is_global_zero = True

    def __init__(self, module):
        self.optimizers = [torch.optim.AdamW(module.parameters())]


class Module:
    step = 0

    def __init__(self):
        self.denoiser = nn.Linear(2, 2)


def test_both_kinds_are_written_when_due_and_the_oldest_go(tmp_path):
    module = Module()
    trainer = Trainer(module.denoiser)
    schedule = CheckpointSchedule(tmp_path, {}, None, steps_per_epoch=3, every_steps=4, every_epochs=1, keep=2)
    for step in range(1, 14):
        for _ in range(2):  # two micro-batches a step: only the first call after a step may save
            module.step = step
            schedule.on_train_batch_end(trainer, module)
    schedule.on_train_end(trainer, module)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["epoch_00003", "epoch_00004", "step_0000012", "step_0000013"]
    assert schedule.last.name == "step_0000013"
    assert directory.read(tmp_path / "epoch_00004").step == 12
