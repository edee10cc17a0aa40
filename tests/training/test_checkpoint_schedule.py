"""Checkpoints by step and by epoch, a bounded number of each kind, written during training."""

import weakref

import pytest
import torch
from torch import nn

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import ConfigError, NumericsError
from tinyflux_pl.training import checkpoint_schedule
from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.optimizers import MuonAdamW


def schedule(folder, average=None, **changed):
    return CheckpointSchedule(
        folder, {}, average, **{"steps_per_epoch": 3, "every_steps": 4, **changed}
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("background", [True, False])
def test_both_kinds_are_written_when_due_and_the_oldest_are_deleted(
    tmp_path, module, trainer, background
):
    kept = schedule(tmp_path, every_epochs=1, keep=2, background=background)
    for step in range(1, 14):
        for _ in range(2):  # two micro-batches a step: only the first call after a step may save
            module.step = step
            kept.on_train_batch_end(trainer, module)
    kept.on_train_end(trainer, module)
    assert names(tmp_path) == ["epoch_00003", "epoch_00004", "step_0000012", "step_0000013"]
    assert kept.last.name == "step_0000013"
    assert directory.read(tmp_path / "epoch_00004").step == 12


def test_a_corrupted_checkpoint_does_not_count_among_those_kept(tmp_path, module, trainer):
    kept = schedule(tmp_path, every_steps=1, keep=2, background=False)
    for step in (1, 2, 3, 4):
        module.step = step
        kept.on_train_batch_end(trainer, module)
        if step == 3:
            (tmp_path / "step_0000003" / "model.safetensors").write_bytes(b"rotten")
    assert names(tmp_path) == ["step_0000002", "step_0000003", "step_0000004"], (
        "two that verify, and none is lost"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["weights", "averages"])
def test_nonfinite_weights_are_never_saved(tmp_path, module, trainer, where, value):
    average = AveragedWeights()
    average.averages = {k: p.detach().clone() for k, p in module.denoiser.named_parameters()}
    kept = schedule(tmp_path, average, background=False)
    target = module.denoiser.weight if where == "weights" else average.averages["bias"]
    target.data.view(-1)[1] = value
    module.step = 4
    with pytest.raises(
        NumericsError, match="weight is not finite" if where == "weights" else "average of bias"
    ):
        kept.on_train_batch_end(trainer, module)
    assert not list(tmp_path.iterdir())


def test_a_run_that_begins_within_an_accumulated_step_does_not_save(tmp_path, module, trainer):
    kept = schedule(tmp_path)
    module.step = 4
    kept.on_train_start(trainer, module)
    kept.on_train_batch_end(trainer, module)  # the first micro-batch of the fifth step
    assert kept.last is None and names(tmp_path) == []


def test_a_background_save_writes_the_state_at_its_step_while_training_continues(
    tmp_path, module, trainer, delayed_writes
):
    average = AveragedWeights()
    average.averages = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    kept = schedule(tmp_path, average)
    trainer.optimizers[0].state[module.denoiser.bias] = {
        "step": torch.tensor(4.0),
        "exp_avg": torch.ones(2),
    }
    weights = {name: tensor.clone() for name, tensor in module.denoiser.state_dict().items()}
    module.step = 4
    kept.on_train_batch_end(trainer, module)  # returns, although the disk does nothing
    with torch.no_grad():
        for tensor in (*module.denoiser.parameters(), *average.averages.values()):
            tensor.add_(7)
        trainer.optimizers[0].state[module.denoiser.bias]["exp_avg"].add_(7)
    delayed_writes.set()
    checkpoint = directory.read(kept.last)
    assert all(torch.equal(checkpoint.weights("raw")[name], weights[name]) for name in weights)
    assert all(bool((tensor == 1).all()) for tensor in checkpoint.weights("averaged").values())
    assert checkpoint.state()["optimizer"]["state"][1]["exp_avg"].tolist() == [1, 1]


def test_a_foreground_save_is_on_disk_when_it_returns(tmp_path, module, trainer):
    kept = schedule(tmp_path, background=False)
    module.step = 4
    kept.on_train_batch_end(trainer, module)
    assert names(tmp_path) == ["step_0000004"]


def test_at_most_one_snapshot_is_in_memory(tmp_path, module, trainer, monkeypatch):
    copies, alive = [], []
    honest = checkpoint_schedule.snapshot

    def counted(value):
        alive.append(sum(copy() is not None for copy in copies))
        copied = honest(value)
        copies.append(weakref.ref(copied["weights"]["weight"]))
        return copied

    monkeypatch.setattr(checkpoint_schedule, "snapshot", counted)
    kept = schedule(tmp_path, every_steps=1)
    for module.step in range(1, 6):
        kept.on_train_batch_end(trainer, module)
    assert kept.last and alive == [0, 0, 0, 0, 0]


def test_save_now_waits_and_a_second_call_writes_nothing(tmp_path, module, trainer, monkeypatch):
    written, save = [], directory.save
    monkeypatch.setattr(
        directory, "save", lambda path, **named: (written.append(path.name), save(path, **named))
    )
    kept = schedule(tmp_path, every_epochs=1)
    module.step = 12
    kept.on_train_batch_end(trainer, module)
    kept.save_now(trainer, module)
    assert written == ["step_0000012", "epoch_00004"] == names(tmp_path)[::-1]
    module.step = 13
    kept.save_now(trainer, module)
    kept.save_now(trainer, module)
    assert written[2:] == ["step_0000013"] and directory.read(tmp_path / "step_0000013").step == 13


def test_a_run_without_a_step_leaves_its_initial_checkpoint_unchanged(tmp_path, module, trainer):
    module.step = 5
    schedule(tmp_path).save_now(trainer, module)
    before = directory.read(tmp_path / "step_0000005").hash
    with torch.no_grad():
        module.denoiser.bias += 1
    resumed = schedule(tmp_path)
    resumed.on_train_start(trainer, module)
    resumed.save_now(trainer, module)
    assert (
        directory.read(tmp_path / "step_0000005").hash == before
        and resumed.last.name == "step_0000005"
    )
    (tmp_path / "step_0000005" / "state.pt").unlink()  # torn since: now it is written again
    resumed.save_now(trainer, module)
    assert directory.read(tmp_path / "step_0000005").hash != before


def test_only_rank_zero_writes(tmp_path, module, trainer):
    trainer.is_global_zero = False
    kept = schedule(tmp_path)
    module.step = 4
    kept.on_train_batch_end(trainer, module)
    kept.on_train_end(trainer, module)
    assert names(tmp_path) == [] and kept.last.name == "step_0000004"


def test_raw_weights_are_saved_while_averages_are_applied(tmp_path, module, trainer):
    average = AveragedWeights()
    average.averages = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    raw = module.denoiser.weight.detach().clone()
    with average.applied(module.denoiser):
        schedule(tmp_path, average).save_now(trainer, module)
    checkpoint = directory.read(tmp_path / "step_0000000")
    assert torch.equal(checkpoint.weights("raw")["weight"], raw)
    assert bool((checkpoint.weights("averaged")["weight"] == 1).all())


def test_the_state_of_muon_with_adamw_round_trips(tmp_path, module, trainer):
    net = nn.ModuleDict(
        {
            "blocks": nn.ModuleList([nn.ModuleDict({"mlp": nn.Linear(4, 4)})]),
            "img_in": nn.Linear(4, 4),
        }
    )
    optimizer = MuonAdamW(net)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    module.network, trainer.optimizers = net, [optimizer]
    schedule(tmp_path).save_now(trainer, module)
    state = directory.read(tmp_path / "step_0000000").state()["optimizer"]
    again = MuonAdamW(net)
    again.load_state_dict(state)
    moments = [p["exp_avg"] for p in optimizer.adamw.state.values()]
    assert len(moments) == 3
    assert all(map(torch.equal, moments, (p["exp_avg"] for p in again.adamw.state.values())))
    buffers = (next(iter(o.muon.state.values()))["momentum_buffer"] for o in (optimizer, again))
    assert torch.equal(*buffers)


@pytest.mark.parametrize("keep", [0, -3])
def test_keeping_no_checkpoint_is_refused(tmp_path, keep):
    with pytest.raises(ConfigError, match="keep") as caught:
        schedule(tmp_path, keep=keep)
    assert caught.value.where == "callbacks.checkpoint.keep" and "at least 1" in caught.value.cure
