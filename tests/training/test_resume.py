"""Going on from a checkpoint: its state, this run's choices."""

from pathlib import Path

import pytest
import torch

from tests.training.small_run import Net, Small, same
from tinyflux_pl.checkpoints import directory, manifest
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.training.callbacks.early_stopping import EarlyStopping
from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
from tinyflux_pl.training.logged_metrics import LoggedMetrics
from tinyflux_pl.training.nonfinite_guard import NonFiniteGuard
from tinyflux_pl.training.optimizers import MuonAdamW, adamw
from tinyflux_pl.training.resume import Resume
from tinyflux_pl.training.run_identity import RunIdentity
from tinyflux_pl.training.stateful_callback import StatefulCallback
from tinyflux_pl.training.teacher_gate import TeacherGate


def run(folder, steps, start=0, optimizer=MuonAdamW, **chosen):
    """`start` to `steps`, from the checkpoint that an earlier call has left."""
    small = Small(folder, steps, start=start, optimizer=optimizer, **chosen)
    if start:
        checkpoint, _ = directory.newest_valid(folder / "checkpoints")
        small.trainer.callbacks.append(Resume(checkpoint, small.net, small.average))
    small.trainer.callbacks.append(
        CheckpointSchedule(folder / "checkpoints", {}, small.average, 1, every_steps=0)
    )
    return small.run()


def test_weights_averages_optimizer_and_guard_resume_bit_equal(tmp_path):
    uninterrupted = run(tmp_path / "whole", 7)
    run(tmp_path / "cut", 3)
    again = run(tmp_path / "cut", 7, start=3)
    assert same(uninterrupted.bits(), again.bits())
    one, other = (small.guard.state()["median"] for small in (uninterrupted, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def partly_frozen():
    """Like an adapter on a network of another's: one part learns, the other and a buffer do not."""
    torch.manual_seed(0)
    net = Net()
    net.img_in.requires_grad_(False)
    net.register_buffer("fixed", torch.arange(3.0))
    return net


@pytest.mark.parametrize("layout", ["stored once", "stored twice"])
def test_a_network_with_frozen_parts_resumes_bit_equal(tmp_path, layout):
    uninterrupted = run(tmp_path / "whole", 7, net=partly_frozen())
    run(tmp_path / "cut", 3, net=partly_frozen())
    folder = tmp_path / "cut" / "checkpoints" / "step_0000003"
    kept = files.read_tensors(folder / manifest.AVERAGED)
    assert kept.keys() == uninterrupted.average.averages.keys() and "img_in.weight" not in kept
    if layout == "stored twice":  # as versions did that wrote schema 2
        checkpoint = directory.read(folder)
        parts = {
            "weights": checkpoint.weights("raw"),
            "averaged": checkpoint.weights("averaged"),
            "state": checkpoint.state(),
        }
        directory.save(folder, step=3, config={}, **parts)
        files.write_sealed(folder / manifest.MANIFEST, {**manifest.read(folder), "schema": 2})
        assert "img_in.weight" in files.read_tensors(folder / manifest.AVERAGED)
    again = run(tmp_path / "cut", 7, start=3, net=partly_frozen())
    assert (
        same(uninterrupted.bits(), again.bits())
        and again.average.averages.keys() == uninterrupted.average.averages.keys()
    )
    saved, net = directory.newest_valid(tmp_path / "cut" / "checkpoints")[0], Net()
    net.register_buffer("fixed", torch.zeros(3))
    # by whoever wants the averages and nothing else
    directory.load_weights(net, saved.weights("averaged"), "here")
    assert torch.equal(net.img_in.weight, partly_frozen().img_in.weight) and torch.equal(
        net.fixed, torch.arange(3.0)
    )


class Dropping(Net):
    """With dropout inside, which draws from torch's own generator."""

    def forward(self, x_t, t, cond):
        return super().forward(torch.nn.functional.dropout(x_t, 0.5, self.training), t, cond)


def test_dropout_inside_the_network_resumes_bit_equal(tmp_path):
    torch.manual_seed(0)
    nets = [Dropping() for _ in range(3)]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    uninterrupted = run(tmp_path / "whole", 7, net=nets[0], accumulation=2)
    run(tmp_path / "cut", 3, net=nets[1], accumulation=2)
    assert same(
        uninterrupted.bits(), run(tmp_path / "cut", 7, start=3, net=nets[2], accumulation=2).bits()
    )


def test_a_resumed_run_keeps_no_checkpoint_file_open(tmp_path):
    """Averages mapped from files would keep disk space that pruning frees."""
    run(tmp_path, 3)
    checkpoint, _ = directory.newest_valid(tmp_path / "checkpoints")
    small = Small(tmp_path, 4, start=3)
    Resume(checkpoint, small.net, small.average)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not tell what is mapped")
    assert str(checkpoint.path) not in maps.read_text()


def test_averages_resume_for_a_partially_compiled_network(tmp_path):
    run(tmp_path, 3)
    checkpoint, _ = directory.newest_valid(tmp_path / "checkpoints")
    small = Small(tmp_path, 4, start=3)
    small.net.img_in = torch.compile(small.net.img_in, backend="eager")
    Resume(checkpoint, small.net, small.average)
    kept = checkpoint.weights("averaged")
    assert "img_in._orig_mod.weight" in small.average.averages
    assert all(
        torch.equal(v, kept[directory.plain_key(k)]) for k, v in small.average.averages.items()
    )


def test_a_resumed_run_uses_the_newly_configured_learning_rates(tmp_path):
    def slower(module):
        return MuonAdamW(module, lr=1e-5, weight_decay=0.5)

    run(tmp_path, 3)
    groups = run(tmp_path, 4, start=3, optimizer=slower).trainer.optimizers[0].param_groups
    assert {group["initial_lr"] for group in groups} == {1e-5, 2e-3}
    assert {group["weight_decay"] for group in groups} == {0.5, 0.0}


def test_the_state_of_another_optimizer_is_refused(tmp_path):
    run(tmp_path, 3)
    with pytest.raises(CheckpointMismatch, match="optimizer"):
        run(tmp_path, 4, start=3, optimizer=adamw)


def test_the_cure_for_another_optimizer_is_applicable(tmp_path):
    """Not a key that the model at hand does not have."""
    run(tmp_path, 3)
    with pytest.raises(CheckpointMismatch) as caught:
        run(tmp_path, 4, start=3, optimizer=adamw)
    assert "model.weights" not in caught.value.cure and "run=NAME" in caught.value.cure


class RenamedGuard(NonFiniteGuard):
    """As a later version of the project might call the class."""


def guard_state(small):
    return small.guard.state()["median"]["values"]


def test_callback_state_is_restored_by_key_after_a_class_is_renamed(tmp_path):
    uninterrupted = run(tmp_path / "whole", 7)
    run(tmp_path / "cut", 3)
    again = run(tmp_path / "cut", 7, start=3, guard_class=RenamedGuard)
    assert torch.equal(guard_state(again), guard_state(uninterrupted))


def test_checkpoints_keyed_by_earlier_class_names_are_restored(tmp_path):
    """They hold {"NonFiniteGuard": ..., "LoggedMetrics": ...}, the names of the classes then."""
    uninterrupted = run(tmp_path / "whole", 7)
    run(tmp_path / "cut", 3)
    checkpoint, _ = directory.newest_valid(tmp_path / "cut" / "checkpoints")
    state = checkpoint.state()
    guard = state["callbacks"].pop(NonFiniteGuard.checkpoint_key)
    metrics = {"names": [], "sums": torch.zeros(()), "steps": torch.zeros(())}  # no rates yet
    state["callbacks"] = {"NonFiniteGuard": guard, "LoggedMetrics": metrics}
    weights, averaged = checkpoint.weights("raw"), checkpoint.weights("averaged")
    directory.save(
        checkpoint.path, step=3, config={}, weights=weights, averaged=averaged, state=state
    )
    again = run(tmp_path / "cut", 7, start=3)
    assert torch.equal(guard_state(again), guard_state(uninterrupted))
    assert same(uninterrupted.bits(), again.bits())


def test_stateful_callbacks_have_distinct_keys():
    stateful = (EarlyStopping, LoggedMetrics, NonFiniteGuard, RunIdentity, TeacherGate)
    keys = [each.checkpoint_key for each in stateful]
    expected = ["EarlyStopping", "LoggedMetrics", "NonFiniteGuard", "RunIdentity", "TeacherGate"]
    assert keys == expected, "keys are in files: never change them"
    callbacks = [
        c for c in StatefulCallback.__subclasses__() if c.__module__.startswith("tinyflux_pl")
    ]
    assert {c.checkpoint_key for c in callbacks} == set(keys)
    assert len(callbacks) == len(keys)
