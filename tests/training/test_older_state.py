"""Runs of older versions with a trained but unused parameter resume now that it is frozen."""

import pytest
import torch

from tests.training.small_run import Net, same
from tests.training.test_resume import run
from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.training.older_state import without_unused_parameters
from tinyflux_pl.training.optimizers import MuonAdamW, adamw


def sgd(module):
    return torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1e-2)


def net(frozen):
    """With an unread matrix and bias in the middle, as deep_v42's spatial_to_qk_scale."""
    torch.manual_seed(0)
    network = Net()
    network.img_in.never_read = torch.nn.Linear(1, 4).requires_grad_(not frozen)
    return network


@pytest.mark.parametrize("optimizer", [MuonAdamW, adamw, sgd])
def test_optimizer_state_of_a_removed_unused_parameter_is_dropped(tmp_path, optimizer):
    uninterrupted = run(tmp_path / "whole", 6, optimizer=optimizer, net=net(frozen=True))
    run(tmp_path / "old", 3, optimizer=optimizer, net=net(frozen=False))
    again = run(tmp_path / "old", 6, start=3, optimizer=optimizer, net=net(frozen=True))
    assert same(uninterrupted.bits(), again.bits())


def test_optimizer_state_of_a_trained_parameter_is_not_dropped(tmp_path):
    run(tmp_path, 3, net=net(frozen=True))
    other = net(frozen=True)
    other.img_in.weight.requires_grad_(False)
    with pytest.raises(CheckpointMismatch, match="optimizer"):
        run(tmp_path, 4, start=3, net=other)


def test_a_matching_optimizer_state_is_unchanged():
    state = {"state": {0: {"step": 1}}, "param_groups": [{"lr": 1, "params": [0, 1]}]}
    assert without_unused_parameters(state, [{"params": [None, None]}]) == state
