"""Averaged weights are kept next to the raw ones and never left in their place."""

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


def test_averages_are_fp32_and_track_updates_that_bf16_would_lose(started):
    module, average = started
    with torch.no_grad():
        module.denoiser.weight.fill_(1.0)
    before = average.averages["weight"].clone()
    take(module, average, 50)
    after = average.averages["weight"]
    assert after.dtype == torch.float32
    assert torch.allclose(after, 1 - (1 - before) * 0.9**50, atol=1e-6)


def test_a_micro_batch_within_a_step_leaves_averages_unchanged(started):
    module, average = started
    before = average.averages["weight"].clone()
    with torch.no_grad():
        module.denoiser.weight.fill_(5.0)
    average.on_train_batch_end(None, module)
    assert torch.equal(before, average.averages["weight"]) and average.updates == 0


def test_excluded_parameters_have_no_average_and_stay_as_they_are():
    module = Module()
    module.network = nn.ModuleDict({"codec": nn.Linear(2, 2), "critic": nn.Linear(2, 2)})
    average = AveragedWeights(decay=0.9, warmup=False, excluded=("critic.",))
    average.on_fit_start(None, module)
    with torch.no_grad():
        for parameter in module.network.parameters():
            parameter.fill_(1.0)
    take(module, average)
    assert set(average.averages) == {"codec.weight", "codec.bias"}
    with average.applied(module.network):
        assert (module.network["critic"].weight == 1.0).all()
        assert (module.network["codec"].weight != 1.0).any()
    assert float(average.distance(module.network)) > 0


def test_raw_weights_are_restored_after_an_error(started):
    module, average = started
    average.averages = {k: torch.full_like(v, 3.0) for k, v in average.averages.items()}
    raw = module.denoiser.weight.detach().clone()
    with pytest.raises(RuntimeError), average.applied(module.denoiser):
        assert (module.denoiser.weight == 3.0).all()
        raise RuntimeError("in the middle of a preview")
    assert torch.equal(module.denoiser.weight, raw)


def test_a_skipped_step_leaves_the_averages_bit_equal(started):
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


def test_the_first_update_of_a_warm_up_has_decay_one_tenth():
    module, average = Module(), AveragedWeights(decay=0.9)
    average.on_fit_start(None, module)
    before = average.averages["weight"].clone()
    with torch.no_grad():
        module.denoiser.weight.fill_(1.0)
    take(module, average)
    assert torch.allclose(average.averages["weight"], 0.1 * before + 0.9)


def test_the_warm_up_counts_steps_of_the_run_and_not_updates_since_resume():
    uninterrupted, early, late = Module(), Module(), Module()
    for module in (early, late):
        module.denoiser.load_state_dict(uninterrupted.denoiser.state_dict())
    values = torch.linspace(0, 1, 9)
    one, two = AveragedWeights(decay=0.9), AveragedWeights(decay=0.9)
    one.on_fit_start(None, uninterrupted)
    two.on_fit_start(None, early)
    for step, value in enumerate(values):
        for module in (uninterrupted, early if step < 4 else late):
            with torch.no_grad():
                module.denoiser.weight.fill_(value)
        take(uninterrupted, one)
        if step < 4:
            take(early, two)
            continue
        if step == 4:  # a new object, as in a resumed run
            late.step, resumed = 4, AveragedWeights(decay=0.9)
            resumed.averages = {k: v.clone() for k, v in two.averages.items()}
            resumed.on_fit_start(None, late)
        take(late, resumed)
    assert all(torch.equal(one.averages[k], resumed.averages[k]) for k in one.averages)


def test_raw_weights_are_saved_while_averages_are_applied(started):
    module, average = started
    average.averages = {k: torch.full_like(v, 3.0) for k, v in average.averages.items()}
    raw = {k: v.clone() for k, v in module.denoiser.state_dict().items()}
    with average.applied(module.denoiser):
        with average.applied(module.denoiser):  # a preview inside a validation
            raw_weights = average.raw_weights(module.denoiser)
        assert (module.denoiser.weight == 3.0).all(), "the inner block must not end the outer one"
        assert (
            all(torch.equal(raw[k], v) for k, v in raw_weights.items())
            and raw_weights.keys() == raw.keys()
        )
    assert torch.equal(module.denoiser.weight, raw["weight"])
    assert all(torch.equal(raw[k], v) for k, v in average.raw_weights(module.denoiser).items())


@pytest.mark.parametrize("decay", [1.0, 2, -0.1, float("nan")])
def test_a_decay_outside_the_valid_range_is_refused(decay):
    with pytest.raises(ConfigError) as caught:
        AveragedWeights(decay=decay)
    assert caught.value.where == "callbacks.ema.decay" and "below 1" in caught.value.cure
    AveragedWeights(decay=0.0)
