"""A trainer and a module as far as saving needs them, and disks that are slow or full."""

from threading import Event

import pytest
import torch
from torch import nn

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import DiskFull
from tinyflux_pl.methods.full import Full


class Trainer:
    is_global_zero = True
    callbacks = ()

    def __init__(self, module):
        self.optimizers = [torch.optim.AdamW(module.parameters())]


class Module:
    step, guard, optimizer_names, method = 0, None, (), Full()

    def __init__(self):
        self.network = self.denoiser = nn.Linear(2, 2)


@pytest.fixture
def module():
    return Module()


@pytest.fixture
def trainer(module):
    return Trainer(module.denoiser)


@pytest.fixture
def delayed_writes(monkeypatch):
    """The disk writes nothing until this event is set."""
    go, save = Event(), directory.save

    def slow(*args, **named):
        assert go.wait(20)
        return save(*args, **named)

    monkeypatch.setattr(directory, "save", slow)
    yield go
    go.set()


@pytest.fixture
def full(monkeypatch):
    """A list of steps that find the disk full."""
    steps, save = [], directory.save

    def refuse(path, **named):
        if named["step"] in steps:
            raise DiskFull("no space", where=str(path), cure="free some space")
        return save(path, **named)

    monkeypatch.setattr(directory, "save", refuse)
    return steps
