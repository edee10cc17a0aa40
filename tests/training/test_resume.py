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


def run(folder, steps, start=0, optimizer=MuonAdamW, **chosen):
    """`start` to `steps`, from the checkpoint that an earlier call has left."""
    small = Small(folder, steps, start=start, optimizer=optimizer, **chosen)
    if start:
        found, _ = directory.newest_valid(folder / "checkpoints")
        small.trainer.callbacks.append(Resume(found, small.net, small.average))
    small.trainer.callbacks.append(
        CheckpointSchedule(folder / "checkpoints", {}, small.average, 1, every_steps=0)
    )
    return small.run()


def test_weights_averages_optimizer_and_guard_go_on_to_the_bit(tmp_path):
    whole = run(tmp_path / "whole", 7)
    run(tmp_path / "cut", 3)
    again = run(tmp_path / "cut", 7, start=3)
    assert same(whole.bits(), again.bits())
    one, other = (small.guard.state()["median"] for small in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def partly_frozen():
    """Like an adapter on a network of another's: one part learns, the other and a buffer do not."""
    torch.manual_seed(0)
    net = Net()
    net.img_in.requires_grad_(False)
    net.register_buffer("fixed", torch.arange(3.0))
    return net


@pytest.mark.parametrize("layout", ["stored once", "stored twice"])
def test_a_network_with_frozen_parts_goes_on_to_the_bit(tmp_path, layout):
    whole = run(tmp_path / "whole", 7, net=partly_frozen())
    run(tmp_path / "cut", 3, net=partly_frozen())
    folder = tmp_path / "cut" / "checkpoints" / "step_0000003"
    kept = files.read_tensors(folder / manifest.AVERAGED)
    assert kept.keys() == whole.average.averages.keys() and "img_in.weight" not in kept
    if layout == "stored twice":  # as versions did that wrote schema 2
        found = directory.read(folder)
        parts = {
            "weights": found.weights("raw"),
            "averaged": found.weights("averaged"),
            "state": found.state(),
        }
        directory.save(folder, step=3, config={}, **parts)
        files.write_sealed(folder / manifest.MANIFEST, {**manifest.read(folder), "schema": 2})
        assert "img_in.weight" in files.read_tensors(folder / manifest.AVERAGED)
    again = run(tmp_path / "cut", 7, start=3, net=partly_frozen())
    assert (
        same(whole.bits(), again.bits())
        and again.average.averages.keys() == whole.average.averages.keys()
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


def test_dropout_inside_the_network_goes_on_to_the_bit(tmp_path):
    torch.manual_seed(0)
    nets = [Dropping() for _ in range(3)]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    whole = run(tmp_path / "whole", 7, net=nets[0], accumulation=2)
    run(tmp_path / "cut", 3, net=nets[1], accumulation=2)
    assert same(whole.bits(), run(tmp_path / "cut", 7, start=3, net=nets[2], accumulation=2).bits())


def test_a_resumed_run_does_not_hold_on_to_the_files_it_came_from(tmp_path):
    """Averages that are still mapped from them would keep the room on the disk that pruning gives
    back.
    """
    run(tmp_path, 3)
    found, _ = directory.newest_valid(tmp_path / "checkpoints")
    small = Small(tmp_path, 4, start=3)
    Resume(found, small.net, small.average)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not tell what is mapped")
    assert str(found.path) not in maps.read_text()


def test_averages_find_their_weights_where_a_part_of_the_network_is_compiled(tmp_path):
    run(tmp_path, 3)
    found, _ = directory.newest_valid(tmp_path / "checkpoints")
    small = Small(tmp_path, 4, start=3)
    small.net.img_in = torch.compile(small.net.img_in, backend="eager")
    Resume(found, small.net, small.average)
    kept = found.weights("averaged")
    assert "img_in._orig_mod.weight" in small.average.averages
    assert all(
        torch.equal(v, kept[directory.plain_key(k)]) for k, v in small.average.averages.items()
    )


def test_learning_rates_are_those_asked_for_now(tmp_path):
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


def test_what_is_told_of_another_optimizer_can_be_done(tmp_path):
    """Not a key that the model at hand does not have."""
    run(tmp_path, 3)
    with pytest.raises(CheckpointMismatch) as caught:
        run(tmp_path, 4, start=3, optimizer=adamw)
    assert "model.weights" not in caught.value.cure and "run=NAME" in caught.value.cure


class RenamedGuard(NonFiniteGuard):
    """As a later version of the project might call the class."""


def guard_state(small):
    return small.guard.state()["median"]["values"]


def test_callback_state_is_found_by_its_key_after_a_class_is_renamed(tmp_path):
    whole = run(tmp_path / "whole", 7)
    run(tmp_path / "cut", 3)
    again = run(tmp_path / "cut", 7, start=3, guard_class=RenamedGuard)
    assert torch.equal(guard_state(again), guard_state(whole))


def test_checkpoints_keyed_by_the_class_names_of_earlier_versions_still_open(tmp_path):
    """They hold {"NonFiniteGuard": ..., "LoggedMetrics": ...}, the names of the classes then."""
    whole = run(tmp_path / "whole", 7)
    run(tmp_path / "cut", 3)
    found, _ = directory.newest_valid(tmp_path / "cut" / "checkpoints")
    state = found.state()
    guard = state["callbacks"].pop(NonFiniteGuard.checkpoint_key)
    metrics = {"names": [], "sums": torch.zeros(()), "steps": torch.zeros(())}  # no rates yet
    state["callbacks"] = {"NonFiniteGuard": guard, "LoggedMetrics": metrics}
    weights, averaged = found.weights("raw"), found.weights("averaged")
    directory.save(found.path, step=3, config={}, weights=weights, averaged=averaged, state=state)
    again = run(tmp_path / "cut", 7, start=3)
    assert torch.equal(guard_state(again), guard_state(whole))
    assert same(whole.bits(), again.bits())


def test_stateful_callbacks_have_keys_of_their_own():
    stateful = (EarlyStopping, LoggedMetrics, NonFiniteGuard, RunIdentity)
    keys = [each.checkpoint_key for each in stateful]
    assert keys == ["EarlyStopping", "LoggedMetrics", "NonFiniteGuard", "RunIdentity"], (
        "keys are in files: never change them"
    )
    callbacks = [
        c for c in StatefulCallback.__subclasses__() if c.__module__.startswith("tinyflux_pl")
    ]
    assert {c.checkpoint_key for c in callbacks} == set(keys)
    assert len(callbacks) == len(keys)
