"""Muon equals torch's, with matrices of one shape together; a skipped step changes nothing."""

import pytest
import torch

from tinyflux_pl.training import muon
from tinyflux_pl.training.muon import Muon, orthogonal

SHAPES = [(16, 48), (48, 16), (16, 48), (24, 24), (16, 48), (48, 16), (24, 24)]


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def gradients(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_steps_equal_those_of_torch_up_to_bf16():
    actual, expected = weights(), weights()
    options = dict(lr=0.02, momentum=0.9, weight_decay=0.1)
    one, other = (
        Muon(actual, **options),
        torch.optim.Muon(expected, adjust_lr_fn="match_rms_adamw", **options),
    )
    for step in range(4):
        for parameters, optimizer in ((actual, one), (expected, other)):
            gradients(parameters, 10 + step)
            optimizer.step()
    for a, b, start in zip(actual, expected, weights(), strict=True):
        assert (a - b).norm() < 0.02 * (b - start).norm()
        assert torch.equal(one.state[a]["momentum_buffer"], other.state[b]["momentum_buffer"])


def test_a_convolution_kernel_is_updated_as_its_matrix():
    kernel = torch.nn.Parameter(torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)))
    matrix = torch.nn.Parameter(kernel.detach().flatten(1).clone())
    for parameter in (kernel, matrix):
        parameter.grad = parameter.detach().clone().cos()
        Muon([parameter], lr=0.02).step()
    assert torch.equal(kernel.detach().flatten(1), matrix.detach())


@pytest.mark.parametrize("shape", [(3, 20, 50), (3, 50, 20)])
def test_singular_values_of_an_update_are_near_one(shape):
    singular_values = torch.linalg.svdvals(
        orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))).float()
    )
    assert singular_values.min() > 0.6 and singular_values.max() < 1.3


def test_the_memory_bound_changes_only_rounding(monkeypatch):
    joint, separate = weights(), weights()
    gradients(joint, 1)
    gradients(separate, 1)
    Muon(joint).step()
    monkeypatch.setattr(muon, "MAX_STACK_BYTES", 16 * 48 * 4 * 2)
    assert sorted(map(len, muon._stacks(separate))) == [1, 2, 2, 2]
    Muon(separate).step()
    for a, b, start in zip(joint, separate, weights(), strict=True):
        assert (a - b).norm() < 0.02 * (b - start).norm()


def test_a_skipped_step_leaves_weights_and_state_bit_equal():
    parameters = weights()
    parameters[0].data[0, :2] = torch.tensor([0.0, -0.0])
    optimizer = Muon(parameters, weight_decay=0.5)
    gradients(parameters, 1)
    optimizer.step()
    before = [
        (p.detach().clone(), optimizer.state[p]["momentum_buffer"].clone()) for p in parameters
    ]
    optimizer.found_inf = torch.tensor(1.0)
    for parameter in parameters:
        parameter.grad.fill_(torch.nan)
    optimizer.step()
    for parameter, (weight, momentum) in zip(parameters, before, strict=True):
        assert torch.equal(parameter.view(torch.int32), weight.view(torch.int32))
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], momentum)


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_iteration_runs_in_bf16_only_where_the_processor_has_it(monkeypatch, fast, dtype):
    monkeypatch.setattr(muon, "has_fast_bf16", lambda device_type: fast)
    assert orthogonal(torch.eye(3)[None]).dtype == dtype
