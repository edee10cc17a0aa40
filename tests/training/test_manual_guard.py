"""The guard of several optimizers: each judged on its own, a critic by finiteness alone."""

from pathlib import Path

import pytest
import torch

from tinyflux_pl.training.manual_guard import ManualGuard
from tinyflux_pl.training.replay_bundle import ReplayBundle


@pytest.fixture
def guard(tmp_path):
    return ManualGuard(ReplayBundle(Path(tmp_path), {"seed": 0}, {}), warmup=4)


def optimizer():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    return torch.optim.SGD([weight], lr=0.1)


def judged(guard, name, norm, step, loss=1.0, limited=True):
    stepped = optimizer()
    before = stepped.param_groups[0]["params"][0].clone()
    values = torch.tensor(loss), torch.tensor(float(norm))
    guard.check_optimizer_step(name, stepped, *values, step, limited=limited)
    stepped.step()
    return not torch.equal(before, stepped.param_groups[0]["params"][0])


def test_a_critics_gradient_may_grow_without_limit(guard):
    norms = [0.2 * 1.5**step for step in range(20)]
    taken = [judged(guard, "critic", n, s, limited=False) for s, n in enumerate(norms)]
    assert all(taken)
    limited = [judged(guard, "autoencoder", n, s) for s, n in enumerate([1.0] * 8 + [1000.0])]
    assert limited == [True] * 8 + [False]


def test_a_nonfinite_gradient_is_rejected_only_for_its_optimizer(guard):
    assert not judged(guard, "autoencoder", torch.nan, 0)
    assert judged(guard, "critic", 1.0, 0, limited=False)
    assert not guard.step_accepted
    assert judged(guard, "autoencoder", 1.0, 1)
    assert not judged(guard, "critic", 1.0, 1, loss=torch.inf, limited=False)
    assert not guard.step_accepted
    assert int(guard.skipped) == 2


def test_the_state_of_every_running_median_round_trips(guard, tmp_path):
    for step in range(6):
        judged(guard, "autoencoder", 1.0, step)
        judged(guard, "critic", 5.0, step, limited=False)
    again = ManualGuard(ReplayBundle(Path(tmp_path), {"seed": 0}, {}), warmup=4)
    again.restore(guard.state())
    assert not judged(again, "autoencoder", 11.0, 6)
    assert judged(again, "critic", 500.0, 6, limited=False)
