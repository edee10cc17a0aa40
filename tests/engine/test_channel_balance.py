"""Calibrated rounding: neutral before it, after it closer than nearest where channels differ."""

import pytest
import torch
from torch import nn

from tinyflux_pl.engine import channel_balance
from tinyflux_pl.engine.activation_record import recorded
from tinyflux_pl.engine.packed_linear import PackedLinear
from tinyflux_pl.engine.packing import linear_layers, pack
from tinyflux_pl.engine.weight_formats import FORMATS, GROUP, signal_to_noise


def case(passes=5, channels=2 * GROUP):
    """A layer, and inputs (passes, 64, K) with a few channels that are 100 times larger."""
    torch.manual_seed(0)
    layer = nn.Linear(channels, 48)
    x = torch.randn(passes, 64, channels)
    x[..., ::17] *= 100
    return layer, x


@pytest.mark.parametrize("method", channel_balance.METHODS)
@torch.no_grad()
def test_factors_are_neutral_before_rounding(method):
    layer, x = case()
    factors = channel_balance.factors(method, x.abs().amax(1), layer.weight)
    expected = layer(x)
    balanced = nn.functional.linear(x / factors, layer.weight * factors, layer.bias)
    assert (factors.max() / factors.min()) > 5
    assert (balanced - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("method", channel_balance.METHODS)
@torch.no_grad()
def test_balanced_rounding_is_closer_than_nearest_where_channels_differ(method):
    layer, x = case()
    factors = channel_balance.factors(method, x.abs().amax(1), layer.weight)
    expected, format = layer(x), FORMATS["int8_dynamic"]
    nearest = signal_to_noise(expected, PackedLinear(layer, format)(x))
    balanced = PackedLinear(layer, format, factors)
    assert signal_to_noise(expected, balanced(x)) > nearest + 3
    assert signal_to_noise(layer.weight, balanced.unpacked()) > 25


@torch.no_grad()
def test_groups_and_tokens_with_their_scales_are_closer_than_tokens_alone():
    layer, x = case()
    x[..., GROUP:] /= 100
    ratios = {
        name: signal_to_noise(layer(x), PackedLinear(layer, FORMATS[name])(x))
        for name in ("int8_dynamic", "q_dit")
    }
    assert ratios["q_dit"] > ratios["int8_dynamic"]


def test_smoothquant_and_ptq4dit_follow_their_formulas():
    activations = torch.tensor([[1.0, 4.0, 9.0], [4.0, 1.0, 1.0]])
    weight = torch.tensor([[1.0, -4.0, 16.0], [0.5, 1.0, 1.0]])
    smooth = channel_balance.smoothquant(activations, weight, 0.25)
    expected = torch.tensor([4.0, 4.0, 9.0]) ** 0.25 / torch.tensor([1.0, 4.0, 16.0]) ** 0.75
    torch.testing.assert_close(smooth, expected)
    rho = channel_balance.spearman(activations, weight.abs().amax(0))
    torch.testing.assert_close(rho, torch.tensor([1.0, -0.5]))  # ties in the order of channels
    shares = torch.softmax(-rho, 0)
    salience = shares[0] * activations[0] + shares[1] * activations[1]
    balanced = channel_balance.ptq4dit(activations, weight)
    torch.testing.assert_close(balanced, (salience / torch.tensor([1.0, 4.0, 16.0])).sqrt())
    silent = channel_balance.smoothquant(torch.zeros(1, 3), weight)
    assert torch.equal(silent, torch.ones(3))


def test_each_pass_of_each_layer_is_recorded_and_hooks_are_removed():
    network = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 4)])})
    layers, x = linear_layers(network), torch.randn(2, 5, 8)
    with recorded(layers) as records:
        for _ in range(3):
            network["blocks"][0](x)
    network["blocks"][0](x)
    seen = records["blocks.0"]
    assert len(seen.maxima) == 3 and not records["blocks.1"].maxima
    assert torch.equal(seen.maxima[0], x.abs().amax((0, 1))) and seen.rows[0].shape == (4, 8)


def test_packing_rounds_each_layer_with_its_factors():
    network = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(64, 8), nn.Linear(64, 8)])})
    packing = pack(network, "int8", {"blocks.1": torch.full((64,), 2.0)})
    assert network["blocks"][0].factors is None and network["blocks"][1].factors is not None
    assert packing.layers[1].after == packing.layers[0].after + 64 * 4
