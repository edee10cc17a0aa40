"""Weights in 8 and 4 bits: errors of rounding, bytes, products."""

import pytest
import torch
from torch import nn

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine.packed_linear import PackedLinear
from tinyflux_pl.engine.packing import pack
from tinyflux_pl.engine.weight_formats import FORMATS, GROUP, signal_to_noise, unpack_fp8

LEAST = {
    "fp8": 30.0,
    "int8": 38.0,
    "int8_dynamic": 38.0,
    "q_dit": 40.0,
    "int4": 17.0,
}  # dB of normal weights


def linear(inputs=2 * GROUP, outputs=48, scale=0.02):
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=scale)
    return layer


def network():
    return nn.ModuleDict(
        {
            "embed": nn.Linear(8, 64),
            "blocks": nn.ModuleList(nn.Sequential(linear(64, 64), nn.GELU()) for _ in range(2)),
        }
    )


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("scale", [1e-4, 0.02, 30.0])
def test_rounding_keeps_its_signal_to_noise_at_any_scale_of_weights(name, scale):
    layer = linear(scale=scale)
    packed = PackedLinear(layer, FORMATS[name])
    assert signal_to_noise(layer.weight, packed.unpacked()) > LEAST[name]


def test_integers_round_to_the_nearest_level():
    layer = linear()
    packed = PackedLinear(layer, FORMATS["int8"])
    step = layer.weight.abs().amax(1, keepdim=True) / 127
    assert ((layer.weight - packed.unpacked()).abs() <= step * 0.5001).all()


@pytest.mark.parametrize("name", ["fp8", "int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_a_layer_multiplies_by_its_rounded_weight(name, dtype):
    packed = PackedLinear(linear(), FORMATS[name])
    x = torch.randn(2, 5, packed.in_features).to(dtype)
    expected = nn.functional.linear(x.float(), packed.unpacked(), packed.bias)
    output = packed(x)
    assert output.dtype == dtype and output.isfinite().all()
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert torch.allclose(output.float(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_unpacked_fp8_is_exact_for_every_finite_number(dtype):
    stored = torch.arange(256, dtype=torch.uint8)[None]
    expected = stored.view(torch.float8_e4m3fn).to(dtype)
    finite = expected.isfinite()
    assert finite.sum() == 254
    assert torch.equal(unpack_fp8(stored, dtype)[finite], expected[finite])


@torch.no_grad()
def test_dynamic_int8_rounds_each_token_by_its_own_scale():
    layer = linear()
    packed = PackedLinear(layer, FORMATS["int8_dynamic"])
    x = torch.randn(3, 7, layer.in_features) * torch.logspace(-3, 3, 7)[None, :, None]
    reference, output = layer(x) - layer.bias, packed(x) - layer.bias
    for token in range(7):
        assert signal_to_noise(reference[:, token], output[:, token]) > 33


@torch.no_grad()
def test_autocast_computes_in_its_dtype():
    packed = PackedLinear(linear(), FORMATS["int8"])
    with torch.autocast("cpu", torch.bfloat16):
        assert packed(torch.randn(4, packed.in_features)).dtype == torch.bfloat16


def test_layers_of_blocks_are_packed_and_the_others_kept():
    model = network()
    packing = pack(model, "int8")
    assert [layer.name for layer in packing.layers] == ["blocks.0.0", "blocks.1.0"]
    assert type(model["embed"]) is nn.Linear
    assert "2 layers" in packing.summary and "dB" in packing.summary
    rows = list(packing.table())
    assert len(rows) == 3 and rows[1].startswith("blocks.")


@pytest.mark.parametrize(("name", "share"), [("fp8", 1 / 2), ("int8", 1 / 2), ("int4", 1 / 4)])
def test_bytes_shrink_and_are_planned_without_weights(name, share):
    with torch.device("meta"):
        planned = pack(network().to(torch.bfloat16), name)
    built = pack(network().to(torch.bfloat16), name)
    for expected, layer in zip(planned.layers, built.layers, strict=True):
        assert (expected.before, expected.after) == (layer.before, layer.after)
        assert share <= layer.after / layer.before < share + 0.07


def test_layers_that_do_not_divide_into_groups_are_kept_and_named():
    model = nn.ModuleDict({"blocks": nn.ModuleList([linear(64, 8), linear(40, 8)])})
    packing = pack(model, "int4")
    assert packing.left == ["blocks.1"] and "inputs: 1" in packing.summary


@pytest.mark.parametrize(("model", "name"), [(network(), "int3"), (linear(), "int8")])
def test_unknown_formats_and_networks_without_blocks_are_refused(model, name):
    with pytest.raises(ConfigError) as caught:
        pack(model, name)
    assert caught.value.where == "engine.precision"
