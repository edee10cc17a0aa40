"""Averaged weights: beside the raw ones, and never left in their place."""

import pytest
import torch
from torch import nn

from tinyflux_pl.training.ema import AveragedWeights


class Trainer:
    global_step = 0


class Module:
    device = torch.device("cpu")

    def __init__(self):
        self.denoiser = nn.Linear(2, 2).to(torch.bfloat16)


@pytest.fixture
def started():
    module, average = Module(), AveragedWeights(decay=0.9, warmup=False)
    average.on_fit_start(Trainer(), module)
    return module, average


def test_averages_are_fp32_and_move_where_bf16_would_stall(started):
    module, average = started
    with torch.no_grad():
        module.denoiser.weight.fill_(1.0)
    before = average.averages["weight"].clone()
    for step in range(1, 51):
        trainer = Trainer()
        trainer.global_step = step
        average.on_train_batch_end(trainer, module)
    after = average.averages["weight"]
    assert after.dtype == torch.float32
    assert torch.allclose(after, 1 - (1 - before) * 0.9**50, atol=1e-6)


def test_a_micro_batch_that_makes_no_step_changes_nothing(started):
    module, average = started
    before = average.averages["weight"].clone()
    with torch.no_grad():
        module.denoiser.weight.fill_(5.0)
    average.on_train_batch_end(Trainer(), module)
    assert torch.equal(before, average.averages["weight"]) and average.updates == 0


def test_raw_weights_come_back_even_after_an_error(started):
    module, average = started
    average.averages = {k: torch.full_like(v, 3.0) for k, v in average.averages.items()}
    raw = module.denoiser.weight.detach().clone()
    with pytest.raises(RuntimeError), average.applied(module.denoiser):
        assert (module.denoiser.weight == 3.0).all()
        raise RuntimeError("in the middle of a preview")
    assert torch.equal(module.denoiser.weight, raw)


def test_an_error_inside_validation_does_not_leave_the_averages_in(started):
    module, average = started
    average.averages = {k: torch.full_like(v, 3.0) for k, v in average.averages.items()}
    raw = module.denoiser.weight.detach().clone()
    average.on_validation_start(Trainer(), module)
    assert (module.denoiser.weight == 3.0).all()
    average.on_exception(Trainer(), module, RuntimeError())
    assert torch.equal(module.denoiser.weight, raw)
    average.on_validation_end(Trainer(), module)  # a second leave does nothing
    assert torch.equal(module.denoiser.weight, raw)
