"""Averaged weights: beside the raw ones, and never left in their place."""

import pytest
import torch
from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.training.ema import AveragedWeights


class Guard:
    step_accepted = torch.tensor(True)


class Module:
    device = torch.device("cpu")
    step, guard = 0, None

    def __init__(self):
        self.network = self.denoiser = nn.Linear(2, 2).to(torch.bfloat16)


@pytest.fixture
def started():
    module, average = Module(), AveragedWeights(decay=0.9, warmup=False)
    average.on_fit_start(None, module)
    return module, average


def take(module, average, steps=1):
    for _ in range(steps):
        module.step += 1
        average.on_train_batch_end(None, module)


def test_averages_are_fp32_and_move_where_bf16_would_stall(started):
    module, average = started
    with torch.no_grad():
        module.denoiser.weight.fill_(1.0)
    before = average.averages["weight"].clone()
    take(module, average, 50)
    after = average.averages["weight"]
    assert after.dtype == torch.float32
    assert torch.allclose(after, 1 - (1 - before) * 0.9**50, atol=1e-6)


def test_a_micro_batch_that_makes_no_step_changes_nothing(started):
    module, average = started
    before = average.averages["weight"].clone()
    with torch.no_grad():
        module.denoiser.weight.fill_(5.0)
    average.on_train_batch_end(None, module)
    assert torch.equal(before, average.averages["weight"]) and average.updates == 0


def test_raw_weights_come_back_even_after_an_error(started):
    module, average = started
    average.averages = {k: torch.full_like(v, 3.0) for k, v in average.averages.items()}
    raw = module.denoiser.weight.detach().clone()
    with pytest.raises(RuntimeError), average.applied(module.denoiser):
        assert (module.denoiser.weight == 3.0).all()
        raise RuntimeError("in the middle of a preview")
    assert torch.equal(module.denoiser.weight, raw)


def test_a_step_that_was_not_taken_leaves_the_averages_to_the_bit(started):
    module, average = started
    module.guard = Guard()
    with torch.no_grad():
        module.denoiser.weight.fill_(1.0)
    take(module, average)
    before = {k: v.clone() for k, v in average.averages.items()}
    module.guard.step_accepted = torch.tensor(False)
    take(module, average, 3)
    assert all(torch.equal(before[k], v) for k, v in average.averages.items())
    module.guard.step_accepted = torch.tensor(True)
    take(module, average)
    assert not torch.equal(before["weight"], average.averages["weight"])


def test_the_first_update_of_a_warm_up_keeps_a_tenth():
    module, average = Module(), AveragedWeights(decay=0.9)
    average.on_fit_start(None, module)
    before = average.averages["weight"].clone()
    with torch.no_grad():
        module.denoiser.weight.fill_(1.0)
    take(module, average)
    assert torch.allclose(average.averages["weight"], 0.1 * before + 0.9)


def test_the_warm_up_counts_the_runs_steps_not_this_objects_updates():
    whole, early, late = Module(), Module(), Module()
    for module in (early, late):
        module.denoiser.load_state_dict(whole.denoiser.state_dict())
    values = torch.linspace(0, 1, 9)
    one, two = AveragedWeights(decay=0.9), AveragedWeights(decay=0.9)
    one.on_fit_start(None, whole)
    two.on_fit_start(None, early)
    for step, value in enumerate(values):
        for module in (whole, early if step < 4 else late):
            with torch.no_grad():
                module.denoiser.weight.fill_(value)
        take(whole, one)
        if step < 4:
            take(early, two)
            continue
        if step == 4:  # a new object, as in a resumed run
            late.step, resumed = 4, AveragedWeights(decay=0.9)
            resumed.averages = {k: v.clone() for k, v in two.averages.items()}
            resumed.on_fit_start(None, late)
        take(late, resumed)
    assert all(torch.equal(one.averages[k], resumed.averages[k]) for k in one.averages)


def test_what_is_saved_while_the_averages_are_applied_is_the_raw_weights(started):
    module, average = started
    average.averages = {k: torch.full_like(v, 3.0) for k, v in average.averages.items()}
    raw = {k: v.clone() for k, v in module.denoiser.state_dict().items()}
    with average.applied(module.denoiser):
        with average.applied(module.denoiser):  # a preview inside a validation
            held = average.raw_weights(module.denoiser)
        assert (module.denoiser.weight == 3.0).all(), "the inner block must not end the outer one"
        assert all(torch.equal(raw[k], v) for k, v in held.items()) and held.keys() == raw.keys()
    assert torch.equal(module.denoiser.weight, raw["weight"])
    assert all(torch.equal(raw[k], v) for k, v in average.raw_weights(module.denoiser).items())


@pytest.mark.parametrize("decay", [1.0, 2, -0.1, float("nan")])
def test_a_decay_that_averages_nothing_or_grows_is_refused(decay):
    with pytest.raises(ConfigError) as caught:
        AveragedWeights(decay=decay)
    assert caught.value.where == "callbacks.ema.decay" and "below 1" in caught.value.cure
    AveragedWeights(decay=0.0)
