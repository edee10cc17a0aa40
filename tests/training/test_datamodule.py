"""What the datamodule asks of torch's loader."""

import multiprocessing
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch

from tests.training.small_run import Samples
from tinyflux_pl.core import interruption
from tinyflux_pl.training.datamodule import CachedLatents


@pytest.mark.parametrize("device, pins", [("cuda", True), ("cpu", False), (None, False)])
def test_batches_are_pinned_on_their_way_to_a_gpu_alone(device, pins):
    data = CachedLatents(Samples(), Samples(), 4, stop_step=2)
    if device is not None:
        strategy = SimpleNamespace(root_device=torch.device(device))
        data.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)
    assert data.train_dataloader().pin_memory is pins


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_workers_ignore_what_asks_the_run_to_stop(number):
    """It reaches the whole group, and the step under way still needs their batches."""
    data = CachedLatents(Samples(), Samples(), 4, stop_step=40, workers=2)
    alone = CachedLatents(Samples(), Samples(), 4, stop_step=40)
    batches = iter(data.train_dataloader())
    drawn = [next(batches).sample_ids.tolist()]
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, number)
    drawn += [batch.sample_ids.tolist() for batch in batches]
    assert (
        drawn == [batch.sample_ids.tolist() for batch in alone.train_dataloader()]
        and len(drawn) == 40
    )


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_a_signal_ends_no_worker_that_has_only_just_started(monkeypatch, number):
    begin = interruption.leave_to_parent

    def late():
        time.sleep(0.3)
        begin()

    monkeypatch.setattr(interruption, "leave_to_parent", late)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    batches = iter(
        CachedLatents(Samples(), Samples(), 4, stop_step=8, workers=2).train_dataloader()
    )
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, number)
    assert len(list(batches)) == 8
