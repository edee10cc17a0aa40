"""Linear layers that keep the blocks of a GGUF file answer as the multiplied-out network does."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests import gguf_files, releases_flux1
from tests.weights.flux1_original import to_original
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.denoisers import gguf_linear
from tinyflux_pl.denoisers.flux1 import Flux1Denoiser
from tinyflux_pl.engine import memory_plan
from tinyflux_pl.engine.packing import pack
from tinyflux_pl.weights import gguf_types
from tinyflux_pl.weights.packed_rows import PackedRows

gguf = pytest.importorskip("gguf")
KINDS = (
    *("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ4_NL", "IQ4_XS"),
)
# widths that blocks of 256 numbers divide
STRUCTURE = {
    **releases_flux1.STRUCTURE,
    "in_channels": 256,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 128,
    "joint_attention_dim": 256,
    "pooled_projection_dim": 256,
    "axes_dims_rope": (16, 56, 56),
}
LINEARS = 30  # of that network


def rows(kind, count=6, width=512, dtype=torch.float32):
    """A matrix in blocks of a type, and its numbers as the package gguf has them."""
    number = gguf.GGMLQuantizationType[kind]
    torch.manual_seed(0)
    content = gguf_files.packed(torch.randn(count, width).numpy(), number)
    values = torch.from_numpy(gguf.quants.dequantize(content, number))
    return PackedRows(torch.from_numpy(content), gguf_types.type_of(number), dtype), values


def original():
    """Random weights of that network under the keys of the release's own file."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    return to_original(FluxTransformer2DModel(**STRUCTURE).state_dict())


@pytest.fixture(scope="module", params=["Q4_K", "Q8_0"])
def file(request, tmp_path_factory):
    """FLUX.1 in the release's own layout, where query, key and value are one matrix."""
    path = tmp_path_factory.mktemp("gguf") / f"{request.param}.gguf"
    gguf_files.write(path, original(), request.param)
    return path


def network(file, dtype="float32", **options):
    structure = dict(STRUCTURE)
    return Flux1Denoiser.released.load(structure, weights=str(file), dtype=dtype, **options)


def answer(net, **changes):
    torch.manual_seed(1)
    inputs = {
        "hidden_states": torch.randn(1, 8, 256),
        "encoder_hidden_states": torch.randn(1, 4, 256),
        "pooled_projections": torch.randn(1, 256),
        "timestep": torch.ones(1),
        "guidance": torch.ones(1),
        "img_ids": torch.zeros(8, 3),
        "txt_ids": torch.zeros(4, 3),
    }
    inputs = {key: value.to(net.dtype) for key, value in inputs.items()} | changes
    return net(**inputs, return_dict=False)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_the_package_gguf(kind, monkeypatch):
    packed, values = rows(kind)
    monkeypatch.setattr(gguf_linear, "PIECE", 2 * 512)  # of two rows
    for dtype in (torch.float32, torch.bfloat16):
        out = gguf_linear.multiply_out(packed.blocks, packed.kind, dtype, dtype)
        assert torch.equal(out, values.to(dtype)) and float(out.std()) > 0
        assert torch.equal(out, PackedRows(packed.blocks, packed.kind, dtype).numbers())


def test_every_type_that_stays_packed_is_compared_above():
    assert gguf_linear.readable_types() == set(KINDS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_a_network_of_the_release_layout_answers_with_the_same_bits(file, dtype):
    plain, packed = network(file, dtype), network(file, dtype, packed=True)
    assert len(gguf_linear.kept_layers(packed)) == LINEARS
    assert not any(type(module) is nn.Linear for module in packed.modules())
    assert packed.dtype == plain.dtype == getattr(torch, dtype)
    assert torch.equal(answer(packed), answer(plain)) and float(answer(plain).std()) > 0.01
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(answer(packed), answer(plain))


def test_the_plan_counts_the_bytes_that_the_loaded_network_takes(file):
    packed = network(file, "bfloat16", packed=True)
    with torch.device("meta"):
        outline = network(file, "bfloat16", packed=True)
    layers = gguf_linear.kept_layers(outline)
    assert len(layers) == LINEARS and all(layer.weight.is_meta for layer in layers)
    assert {layer.stored for layer in layers} == {torch.bfloat16}
    actual = memory_plan.weight_bytes(packed)
    assert memory_plan.weight_bytes(outline) == actual < file.stat().st_size
    plain = network(file, "bfloat16")
    count = sum(parameter.numel() for parameter in plain.parameters())
    assert gguf_linear.num_parameters(packed) == count
    assert actual < memory_plan.weight_bytes(plain) * 0.55


def test_gradients_pass_the_blocks_and_no_multiplied_weight_is_kept(file):
    plain, packed = network(file), network(file, packed=True)
    kept = []
    gradients = []
    for net in (plain, packed):
        net.requires_grad_(False)
        text = torch.randn(1, 4, 256, generator=torch.Generator().manual_seed(2))
        text.requires_grad_(True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            loss = answer(net, encoder_hidden_states=text).square().mean()
        sizes = [t.nbytes for t in kept if t.ndim == 2 and t.shape[0] >= 256]
        kept.clear()
        loss.backward()
        gradients.append((text.grad, sum(sizes)))
    (one, unpacked), (other, blocks) = gradients
    assert torch.allclose(one, other, atol=1e-7) and float(one.abs().max()) > 0
    assert blocks < unpacked * 0.3


def test_rows_are_split_and_joined_in_blocks_and_other_operations_read_numbers():
    packed, values = rows("Q4_K")
    first, second = packed.chunk(2)
    joined = torch.cat((second, first))
    assert isinstance(joined, PackedRows) and joined.shape == values.shape
    assert torch.equal(joined.numbers(), torch.cat((values[3:], values[:3])))
    assert isinstance(packed[1:4], PackedRows)
    assert torch.equal(packed[1:4].numbers(), values[1:4])
    for changed, meant in (
        (packed.t(), values.t()),
        (packed.chunk(2, 1)[0], values[:, :256]),
        (packed * 2, values * 2),
        (torch.cat((packed, values)), torch.cat((values, values))),
    ):
        assert not isinstance(changed, PackedRows) and torch.equal(changed, meant)
    with pytest.raises(TypeError, match="would change"):
        packed.mul_(2)


def test_rows_of_two_types_are_not_joined_in_blocks_though_their_sizes_are_equal():
    (one, values), (two, second_values) = rows("Q4_K"), rows("Q4_0")
    assert one.blocks.shape == two.blocks.shape
    joined = torch.cat((one, two))
    assert not isinstance(joined, PackedRows) and torch.equal(
        joined, torch.cat((values, second_values))
    )


def test_a_layer_of_a_type_that_only_loading_multiplies_out_is_refused(tmp_path):
    gguf_files.write(tmp_path / "a.gguf", original(), "IQ3_S")
    with pytest.raises(CheckpointMismatch, match=r"IQ3_S[\s\S]*model\.packed=false"):
        network(tmp_path / "a.gguf", packed=True)
    assert not gguf_linear.kept_layers(network(tmp_path / "a.gguf"))


def test_weights_that_are_no_gguf_file_are_refused(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    for weights in (str(tmp_path / "a.safetensors"), None):
        with pytest.raises(ConfigError, match=r"GGUF[\s\S]*model\.packed"):
            Flux1Denoiser.released.load(dict(STRUCTURE), weights=weights, packed=True)


def test_another_packing_on_blocks_is_refused(file):
    packed = network(file, packed=True)
    with pytest.raises(ConfigError, match=r"engine\.precision=int8[\s\S]*model\.packed=false"):
        pack(packed, "int8")
