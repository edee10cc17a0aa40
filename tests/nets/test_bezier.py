"""Bezier activations: exact gradients, little memory, every layout, every way of computing them."""

from functools import partial

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.nets import bezier_formula
from tinyflux_pl.nets.bezier import PICTURE_START, BezierActivation, TrainableBezier

PRE = (None, "sigmoid", "tanh", "silu")


def saved_bytes(function):
    """Bytes of the distinct tensors that autograd keeps for the backward pass."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return sum(kept.values())


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("t_pre", PRE)
@pytest.mark.parametrize("p_pre", PRE)
def test_first_and_second_derivatives_pass_gradcheck(t_pre, p_pre, planar):
    x = torch.randn(2, 10, 2, 1, dtype=torch.float64, requires_grad=True)
    activation = BezierActivation(t_pre, p_pre, planar)
    assert torch.autograd.gradcheck(activation, x)
    assert torch.autograd.gradgradcheck(activation, x)


@pytest.mark.parametrize("channels", [False, True])
def test_derivatives_of_the_learned_curve_pass_gradcheck(channels):
    curve = TrainableBezier((3,) if channels else (3, 1, 1), channels=channels).double()
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    points = (curve.p0, curve.p1, curve.p2, curve.p3)
    assert torch.autograd.gradcheck(lambda *_: curve(x), (x, *points))


@pytest.mark.parametrize(("t_pre", "p_pre"), [("sigmoid", "silu"), ("silu", "tanh"), (None, None)])
def test_memory_kept_for_backward_is_at_most_six_outputs(t_pre, p_pre):
    x = torch.randn(2, 20, 8, 8, requires_grad=True)
    activation = BezierActivation(t_pre, p_pre)
    unit = activation(x).numel() * 4
    assert saved_bytes(lambda: activation(x)) <= 6 * unit
    curve = TrainableBezier((20,), channels=True)
    assert saved_bytes(lambda: curve(x)) <= x.numel() * 4 * 1.1


def test_a_planar_activation_is_the_same_on_regrouped_channels():
    x = torch.randn(2, 15, 4, 4, dtype=torch.float64)
    regrouped = x.view(2, 3, 5, 4, 4).transpose(1, 2).reshape(2, 15, 4, 4)
    # some processors' vector kernels round by where a value lies: all but the last bits of fp64
    close = partial(torch.testing.assert_close, rtol=1e-13, atol=1e-13)
    close(BezierActivation()(x), BezierActivation(planar=True)(regrouped))
    tokens = torch.randn(2, 7, 15, dtype=torch.float64)
    regrouped = tokens.view(2, 7, 3, 5).transpose(2, 3).flatten(2)
    close(BezierActivation()(tokens), BezierActivation(planar=True)(regrouped))


def test_half_precision_is_computed_in_fp32():
    x = torch.randn(4, 40).bfloat16().requires_grad_()
    out = BezierActivation("silu", "tanh")(x)
    assert out.dtype == torch.bfloat16
    exact = BezierActivation("silu", "tanh")(x.detach().float())
    torch.testing.assert_close(out.float(), exact, rtol=2**-8, atol=1e-6)
    out.float().sum().backward()
    assert x.grad.dtype == torch.bfloat16


@pytest.mark.skipif(bezier_formula.cpp_compiler() is None, reason="no compiler")
def test_the_compiled_activation_equals_the_formula(monkeypatch):
    monkeypatch.setattr(bezier_formula, "COMPILED_FROM", 0)
    x = torch.randn(2, 20, 8, 8, requires_grad=True)
    out = BezierActivation("sigmoid", "silu", planar=True)(x)
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    monkeypatch.setattr(bezier_formula, "COMPILED_FROM", 10**9)
    expected = BezierActivation("sigmoid", "silu", planar=True)(x)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_without_a_compiler_the_formula_is_used(monkeypatch):
    monkeypatch.setattr(bezier_formula, "cpp_compiler", lambda: None)
    monkeypatch.setattr(bezier_formula, "COMPILED_FROM", 0)
    bezier_formula.compiled.cache_clear()
    x = torch.randn(3, 10)
    expected = bezier_formula.forward_rows(x.view(-1, 5, 1), "sigmoid", None)
    assert torch.equal(BezierActivation()(x).view(-1, 1), expected)
    bezier_formula.compiled.cache_clear()


def test_failed_compilation_falls_back_to_the_formula_with_a_warning(monkeypatch, caplog):
    def broken(*_, **__):
        def call(*_):
            raise RuntimeError("no linker")

        return call

    monkeypatch.setattr(bezier_formula, "cpp_compiler", lambda: "g++")
    monkeypatch.setattr(torch, "compile", broken)
    bezier_formula.compiled.cache_clear()
    rows = torch.randn(2, 5, 3)
    output = bezier_formula.compiled(bezier_formula.forward_rows)(rows, "tanh", "silu")
    assert torch.equal(output, bezier_formula.forward_rows(rows, "tanh", "silu"))
    assert "no linker" in caplog.text
    bezier_formula.compiled.cache_clear()


def test_the_image_curve_starts_as_a_scaled_sigmoid():
    curve = TrainableBezier((1,), PICTURE_START)
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(curve(x), 2 * x.sigmoid() - 1)


def test_invalid_settings_and_shapes_are_refused():
    with pytest.raises(ConfigError, match="relu"):
        BezierActivation("relu")
    with pytest.raises(ValueError, match="12 channels"):
        BezierActivation()(torch.zeros(2, 12))
