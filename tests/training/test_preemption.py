"""Early ends of a run: saved at a complete, finite step or not at all."""

import functools
import os
import signal
import socket
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from tests.faults.forks import Child
from tests.training.small_run import Small
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core import interruption
from tinyflux_pl.core.errors import CheckpointMismatch, Interrupted
from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
from tinyflux_pl.training.logged_metrics import LoggedMetrics
from tinyflux_pl.training.optimizers import MuonAdamW
from tinyflux_pl.training.preemption import Preemption, poll
from tinyflux_pl.training.throughput import Throughput


class At(Callback):
    """Does something in a hook once the module stands at a step."""

    def __init__(self, hook, step, do):
        def called(trainer, module, *_):
            if module.step == step:
                do(module)

        setattr(self, hook, called)


def failing(error):
    def do(_):
        raise error

    return do


def ended_by(folder, attack, error, accumulation=1, every=0, **chosen):
    """Run until `error` comes out; the steps that are saved."""
    small = Small(folder, 6, accumulation=accumulation, guarded=False, **chosen)
    checkpoints = CheckpointSchedule(folder / "checkpoints", {}, small.average, 1, every_steps=0)
    small.trainer.callbacks += [
        LoggedMetrics(every, Throughput()),
        Preemption(checkpoints),
        checkpoints,
        attack,
    ]
    with interruption.listening(), pytest.raises(error):
        small.run()
    saved = [directory.read(path) for path in directory.list_steps(folder / "checkpoints")]
    for checkpoint in saved:
        weights = checkpoint.weights("raw")
        assert all(
            torch.equal(value, weights[name]) for name, value in small.net.state_dict().items()
        )
    return [checkpoint.step for checkpoint in saved]


def ask(_):
    interruption.request_stop(signal.SIGTERM)


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_stop_requests_are_shared_on_cpu_tensors(monkeypatch, backend):
    world, groups, calls = object(), [], []

    def all_reduce(value, _, group):
        calls.append((value.device.type, group))
        value.fill_(signal.SIGTERM)

    monkeypatch.setattr(torch.distributed, "group", SimpleNamespace(WORLD=world))
    monkeypatch.setattr(torch.distributed, "get_backend", lambda group: backend)
    monkeypatch.setattr(
        torch.distributed, "new_group", lambda backend: groups.append(backend) or "of the hosts"
    )
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    for _ in range(2):
        with interruption.listening(), pytest.raises(Interrupted) as stop:
            poll(
                SimpleNamespace(
                    world_size=2, strategy=SimpleNamespace(root_device=torch.device("cuda"))
                )
            )
        assert stop.value.everywhere
    assert calls == [("cpu", world if backend == "gloo" else "of the hosts")] * 2
    assert groups == ([] if backend == "gloo" else ["gloo"]), "once"


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_stop_request_takes_effect_after_the_current_step(tmp_path, accumulation):
    assert ended_by(tmp_path, At("on_train_batch_start", 3, ask), Interrupted, accumulation) == [4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_handled_here_and_not_by_lightning(tmp_path, number):
    calls = []

    def kill(_):
        if not calls:
            calls.append(os.kill(os.getpid(), number))

    attack = At("on_train_batch_start", 3, kill)
    assert ended_by(tmp_path, attack, Interrupted, accumulation=3) == [4]


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_before_backward"])
def test_an_error_within_a_step_saves_the_previous_step(tmp_path, hook):
    assert ended_by(tmp_path, At(hook, 3, failing(ValueError("on purpose"))), ValueError, 2) == [3]


def test_an_error_after_a_step_saves_that_step(tmp_path):
    assert ended_by(
        tmp_path, At("on_train_batch_end", 3, failing(ValueError("on purpose"))), ValueError
    ) == [3]


def test_a_failing_logger_loses_no_step(tmp_path, monkeypatch):
    monkeypatch.setattr(LoggedMetrics, "_write", lambda *_: failing(ValueError("on purpose"))(None))
    assert ended_by(tmp_path, At("on_train_end", -1, ask), ValueError, every=3) == [3]


class Breaks(MuonAdamW):
    """Fails in its fourth step, once the weights are changed."""

    taken = 0

    def step(self, closure=None):
        super().step(closure)
        Breaks.taken += 1
        if Breaks.taken == 4:
            raise ValueError("on purpose")


def test_an_incomplete_step_is_not_saved(tmp_path):
    Breaks.taken = 0
    assert ended_by(tmp_path, At("on_train_end", -1, ask), ValueError, optimizer=Breaks) == []


def test_no_checkpoint_is_saved_before_the_first_step(tmp_path):
    assert (
        ended_by(
            tmp_path, At("on_train_batch_start", 0, failing(ValueError("on purpose"))), ValueError
        )
        == []
    )


def test_ranks_that_begin_at_different_steps_are_refused(tmp_path):
    """A rank without the newest checkpoint would train on samples of another."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def rank(number):
        reports = {
            "RANK": number,
            "LOCAL_RANK": number,
            "WORLD_SIZE": 2,
            "LOCAL_WORLD_SIZE": 2,
            "GROUP_RANK": 0,
        }
        os.environ.update(
            {k: str(v) for k, v in reports.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=port
        )
        os.environ["TORCHELASTIC_RUN_ID"] = "steps"
        small = Small(tmp_path, 6, ranks=2, start=0 if number else 3)
        small.trainer.callbacks.append(
            Preemption(CheckpointSchedule(tmp_path, {}, small.average, 1))
        )
        with pytest.raises(CheckpointMismatch, match="from step 0 to step 3"):
            small.run()

    ranks = [Child(functools.partial(rank, i), tmp_path / f"{i}.log") for i in range(2)]
    for child in ranks:
        ended = child.wait(60)
        assert ended.code == 0, ended.printed[-3000:]


def test_a_stop_request_before_the_first_step_takes_effect_before_it(tmp_path):
    assert ended_by(tmp_path, At("on_fit_start", 0, ask), Interrupted) == []
