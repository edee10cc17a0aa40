"""Settings of torch's data loader, and signals in its workers."""

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
def test_batches_are_pinned_only_for_a_gpu(device, pins):
    data = CachedLatents(Samples(), Samples(), 4, stop_step=2)
    if device is not None:
        strategy = SimpleNamespace(root_device=torch.device(device))
        data.trainer = SimpleNamespace(global_rank=0, world_size=1, strategy=strategy)
    assert data.train_dataloader().pin_memory is pins


@pytest.mark.parametrize(
    ("limit", "held_out"),
    [(None, list(range(10))), (10, list(range(10))), (5, [0, 2, 4, 6, 8]), (4, [0, 3, 6, 9])],
)
def test_validation_takes_at_most_its_samples_evenly_spaced(limit, held_out):
    data = CachedLatents(Samples(40), Samples(10), 4, stop_step=2, validation_samples=limit)
    assert [row for rows in data.validation_batches().batch_sampler for row in rows] == held_out
    seen = [row for rows in data.seen_batches().batch_sampler for row in rows]
    assert len(seen) == len(held_out) and seen[-1] >= 30


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_workers_ignore_stop_signals(number):
    """Signals reach the whole group, and the current step still needs its batches."""
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
def test_a_signal_does_not_kill_a_worker_that_is_starting(monkeypatch, number):
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
