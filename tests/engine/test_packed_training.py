"""Gradients pass frozen layers in 8 and 4 bits, and keep no unpacked weight."""

import pytest
import torch
from torch import nn

from tests import gguf_files
from tests.engine.test_packing import linear, network
from tinyflux_pl.engine import outline
from tinyflux_pl.engine.packed_linear import PackedLinear
from tinyflux_pl.engine.packing import pack
from tinyflux_pl.engine.weight_formats import FORMATS

NAMES = ("fp8", "int8", "int4")


def gradient(layer, x, weights):
    """Output of a layer, and the gradient of x where `weights` (..., N) multiply the output."""
    x = x.clone().requires_grad_()
    output = layer(x)
    (output * weights).sum().backward()
    return output.detach(), x.grad


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 128), (2, 5, 128)])
def test_the_gradient_is_that_of_the_unpacked_layer(name, shape):
    packed = PackedLinear(linear(), FORMATS[name])
    plain = nn.Linear(128, 48)
    plain.weight.data, plain.bias.data = packed.unpacked(), packed.bias.data
    torch.manual_seed(1)
    x, weights = torch.randn(shape), torch.randn(*shape[:-1], 48)
    for answer, reference in zip(
        gradient(packed, x, weights), gradient(plain, x, weights), strict=True
    ):
        torch.testing.assert_close(answer, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_finite_differences_agree_with_the_gradient(name):
    packed = PackedLinear(linear(64, 6).double(), FORMATS[name])
    packed.scale.data, packed.bias.data = packed.scale.data.double(), packed.bias.data.double()
    x = torch.randn(2, 64, dtype=torch.float64, requires_grad=True)
    # in fp32 inside, so that the difference is a wide one
    assert torch.autograd.gradcheck(packed, (x,), eps=1e-2, atol=1e-3, rtol=1e-3, nondet_tol=0)


@pytest.mark.parametrize("name", NAMES)
def test_training_and_drawing_multiply_to_the_same_bits(name):
    packed, x = PackedLinear(linear(), FORMATS[name]), torch.randn(4, 128)
    with torch.no_grad():
        drawn = packed(x)
    assert torch.equal(packed(x.requires_grad_()), drawn)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_weight_s_size_is_kept_for_the_way_back(name):
    packed, kept = PackedLinear(linear(), FORMATS[name]), []
    stored = {packed.packed.data_ptr(), packed.scale.data_ptr()}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        packed(torch.randn(4, 128, requires_grad=True))
    assert kept and all(tensor.data_ptr() in stored for tensor in kept)


def test_layers_that_a_checkpoint_holds_keep_their_weights():
    model = network()
    packing = pack(model, "int8", kept=("blocks.0.0.weight",))
    assert [layer.name for layer in packing.layers] == ["blocks.1.0"]


def test_a_plan_counts_the_activations_of_packed_layers_in_the_format_of_the_step():
    """Beside the plain layer's there is one output in fp32, for as long as it is scaled."""
    tokens = 4096

    def peak(stored):
        with torch.device("meta"):
            model = nn.Sequential(linear(64, 64), nn.ModuleList([linear(64, 64)])[0])
            model = nn.ModuleDict({"blocks": nn.ModuleList(model)}).requires_grad_(False)
            if stored:
                pack(model, "int8")

        def loss(samples):
            x = torch.zeros(samples, tokens, 64, device="meta", requires_grad=True)
            for block in model["blocks"]:
                x = torch.nn.functional.gelu(block(x))
            return x.sum()

        step = outline.step(model, loss, "bf16-mixed")
        return step.second - step.first

    assert 0 <= peak(True) - peak(False) <= 4 * 64 * tokens


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_plan_keeps_no_multiplied_out_weight_for_each_layer_of_gguf_blocks(precision):
    pytest.importorskip("gguf")
    width = 256

    def peak(depth):
        layers = [nn.Linear(width, width, bias=False) for _ in range(depth)]
        model = gguf_files.keep(nn.Sequential(*layers)).to("meta").requires_grad_(False)
        inputs = torch.zeros(8, width, device="meta", requires_grad=True)
        return outline.step(model, lambda samples: model(inputs[:samples]).sum(), precision).at(2)

    bytes_of_one = width * width * (2 if precision == "bf16-mixed" else 4)
    assert peak(2) > bytes_of_one
    assert peak(8) - peak(2) < 0.5 * bytes_of_one
