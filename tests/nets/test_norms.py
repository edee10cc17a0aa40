"""The norm with its written-out gradient agrees with autograd's."""

import pytest
import torch

from tinyflux_pl.nets.norms import EPS, rms_norm


def plain(x, scale, shift):
    out = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * scale
    return out if shift is None else out + shift


@pytest.mark.parametrize("kind", ["modulated", "scaled", "heads"])
def test_values_and_gradients_equal_the_reference_norm(kind):
    def leaf(*shape):
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    x = leaf(2, 3, 5, 8) if kind == "heads" else leaf(2, 5, 8)
    scale, shift = (leaf(2, 1, 8), leaf(2, 1, 8)) if kind == "modulated" else (leaf(8), None)
    leaves = [leaf for leaf in (x, scale, shift) if leaf is not None]
    out, expected = rms_norm(x, scale, shift), plain(x, scale, shift)
    assert torch.allclose(out, expected)
    grad = torch.randn_like(out)
    gradients = torch.autograd.grad(out, leaves, grad)
    for actual, reference in zip(
        gradients, torch.autograd.grad(expected, leaves, grad), strict=True
    ):
        assert torch.allclose(actual, reference)


def test_mixed_precision_keeps_each_gradient_in_its_own_dtype():
    x = torch.randn(2, 5, 8, requires_grad=True)
    scale, shift = (torch.randn(2, 1, 8).bfloat16().requires_grad_() for _ in range(2))
    out = rms_norm(x, scale, shift)
    out.sum().backward()
    assert out.dtype == torch.float32
    assert [t.grad.dtype for t in (x, scale, shift)] == [
        torch.float32,
        torch.bfloat16,
        torch.bfloat16,
    ]


def test_statistics_of_half_precision_inputs_do_not_overflow():
    out = rms_norm(torch.full((1, 2, 64), 300.0).half(), torch.ones(64).half())
    assert torch.allclose(out, torch.ones_like(out))


def test_zero_rows_stay_zero():
    x = torch.zeros(1, 2, 8, requires_grad=True)
    rms_norm(x, torch.ones(8)).sum().backward()
    assert x.grad.isfinite().all()
