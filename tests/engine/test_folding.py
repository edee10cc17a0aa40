"""Factors that are divided in the layers before: neutral, of every layer that allows it."""

from copy import deepcopy
from functools import partial

import pytest
import torch

from tests.denoisers.test_conformance import SMALL, example
from tests.denoisers.test_tinyflux import denoiser as tinyflux
from tinyflux_pl.engine import packing, weight_formats
from tinyflux_pl.engine.packed_linear import PackedLinear
from tinyflux_pl.engine.packing import linear_layers, pack

# 64 channels, so that a layer divides into groups of every format
WIDE = {"num_attention_heads": 4, "axes_dims_rope": (4, 6, 6), "attention_head_dim": 16}
NETWORKS = {
    "tinyflux": partial(tinyflux, hidden_size=64, **WIDE),
    "flux1": SMALL["flux1"],
}
# of a double and of a single block: the layers that read what is not linear in the layers before
LATE = {
    "tinyflux": ("norm1.linear", "norm.linear", "fc2"),
    "flux1": ("norm1.linear", "norm1_context.linear", "norm.linear", "net.2", "proj_out"),
}
EXACT = weight_formats.Format(
    "exact", 32, lambda w: (w.float(), torch.ones(len(w))), lambda stored, dtype: stored.to(dtype)
)


@pytest.fixture
def exact(monkeypatch):
    """A format that rounds nothing."""
    monkeypatch.setitem(packing.FORMATS, "exact", EXACT)


def network(name):
    """Random weights, with modulations far from zero and an answer of every block."""
    torch.manual_seed(0)
    denoiser = NETWORKS[name]().eval().requires_grad_(False)
    for path, parameter in denoiser.named_parameters():
        if "norm" in path and ".linear." in path:
            parameter.normal_(std=0.3)
        elif not parameter.any():
            parameter.normal_(std=0.1)
    return denoiser


def factors_of(denoiser, spread=3.0):
    """From 1 / 20 to 20, the same for layers that read one tensor."""
    factors = {
        name: torch.exp(spread * (2 * torch.rand(layer.in_features) - 1))
        for name, layer in linear_layers(denoiser).items()
    }
    for each in denoiser.divisible_inputs():
        factors |= dict.fromkeys(each.layers, factors[each.layers[0]])
    return factors


def answer(denoiser):
    x, t, cond = example(denoiser)
    with torch.no_grad():
        return denoiser(x, t, cond).sample


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_factors_are_neutral_before_rounding(name, exact):
    denoiser = network(name)
    expected = answer(denoiser)
    packed = deepcopy(denoiser)
    packing = pack(packed, "exact", factors_of(packed), inputs=packed.divisible_inputs())
    assert (answer(packed) - expected).norm() <= 1e-5 * expected.norm()
    assert float(expected.std()) > 0.01
    assert min(layer.decibels for layer in packing.layers) > 100  # of the layers' own weights


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_but_those_behind_an_activation_is_divided_before(name):
    denoiser = network(name)
    factors = factors_of(denoiser)
    packing = pack(denoiser, "int8", factors, inputs=denoiser.divisible_inputs())
    late = {layer.name for layer in packing.layers if layer.divided == "at run time"}
    assert late == {layer for layer in factors if layer.endswith(LATE[name])}
    for layer in packing.layers:
        module = denoiser.get_submodule(layer.name)
        assert isinstance(module, PackedLinear)
        assert (module.factors is None) == (layer.name not in late)
        assert layer.divided.startswith("at run time" if layer.name in late else "in net.")
    counts = f"before: {len(factors) - len(late)}, at run time: {len(late)}"
    assert counts in packing.summary
    assert next(packing.table()).endswith(",input_divided")
    assert all(row.count(",") == 5 for row in packing.table())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("format", ["int8", "fp8", "int8_dynamic", "int4"])
def test_rounding_is_as_close_as_with_factors_at_run_time(name, format):
    denoiser = network(name)
    expected, factors = answer(denoiser), factors_of(denoiser, spread=1.0)
    errors = []
    for inputs in ((), denoiser.divisible_inputs()):
        packed = deepcopy(denoiser)
        pack(packed, format, factors, inputs=inputs)
        errors.append(float((answer(packed) - expected).norm() / expected.norm()))
    late, before = errors
    assert before < 1.2 * late and late < 0.7


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_in_bfloat16_answers_as_with_factors_at_run_time(name, exact):
    denoiser = network(name)
    expected, factors = answer(denoiser), factors_of(denoiser, spread=5.0)
    errors = []
    for inputs in ((), denoiser.divisible_inputs()):
        packed = deepcopy(denoiser).to(torch.bfloat16)
        pack(packed, "exact", factors, inputs=inputs)
        errors.append(float((answer(packed).float() - expected).norm() / expected.norm()))
    late, before = errors
    assert before < 1.3 * late and late < 0.05


def test_layers_that_read_one_tensor_with_other_factors_stay_divided_at_run_time(exact):
    """As a file of an earlier calibration has them."""
    denoiser = network("flux1")
    expected = answer(denoiser)
    factors = factors_of(denoiser)
    key = "net.transformer_blocks.0.attn.to_k"
    factors[key] = factors[key] * 2
    packing = pack(denoiser, "exact", factors, inputs=denoiser.divisible_inputs())
    divided = {layer.name: layer.divided for layer in packing.layers}
    assert divided[key] == f"at run time: {key} reads it too and has other factors"
    assert divided["net.transformer_blocks.0.attn.to_q"] == divided[key]
    assert divided["net.transformer_blocks.1.attn.to_k"].startswith("in net.")
    assert (answer(denoiser) - expected).norm() <= 1e-5 * expected.norm()


def test_inputs_of_layers_with_an_adapter_stay_as_they_are(exact):
    """Its own layers read them, and add to the channels of the layers before."""
    from peft import LoraConfig, inject_adapter_in_model

    denoiser = network("flux1")
    targets = r".*transformer_blocks\.0\.attn\.to_(q|v)"
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    inject_adapter_in_model(config, denoiser)
    denoiser.requires_grad_(False)
    expected = answer(denoiser)
    names = set(linear_layers(denoiser))
    factors = {
        name: torch.full((linear_layers(denoiser)[name].in_features,), 3.0) for name in names
    }
    packing = pack(denoiser, "exact", factors, inputs=denoiser.divisible_inputs())
    divided = {layer.name: layer.divided for layer in packing.layers}
    block = "net.transformer_blocks.0.attn"
    assert divided[f"{block}.to_q.base_layer"] == "at run time"
    assert "to_q reads it too" in divided[f"{block}.to_k"]
    assert divided[f"{block}.to_out.0"] == f"at run time: {block}.to_v is a Linear"
    assert divided["net.transformer_blocks.1.attn.to_out.0"].startswith("in net.")
    assert (answer(denoiser) - expected).norm() <= 1e-5 * expected.norm()
