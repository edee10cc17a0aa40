"""Methods beside a base whose linear layers keep the blocks of a GGUF file."""

import copy

import pytest
import torch

from tests import gguf_files
from tests.app.runs import run
from tests.denoisers.test_conformance import SMALL, example
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.denoisers import gguf_linear
from tinyflux_pl.methods import base_precision
from tinyflux_pl.methods.adapted_network import add_adapters, extract_adapter, merged_state
from tinyflux_pl.methods.lora import LoRA
from tinyflux_pl.methods.registry import build_method

pytest.importorskip("gguf")
WORD = {"word": "mug", "widths": {"t5": 8}}


def both():
    """FLUX.1 in small with blocks of Q8_0, and with their numbers as weights."""
    torch.manual_seed(0)
    plain = SMALL["flux1"]().eval()
    packed = gguf_files.keep(copy.deepcopy(plain))
    for name, layer in packed.named_modules():
        if isinstance(layer, gguf_linear.GGUFLinear):
            numbers = gguf_linear.multiply_out(layer.weight, layer.kind, *(layer.stored,) * 2)
            plain.get_submodule(name).weight.data = numbers
    assert gguf_linear.kept_layers(packed)
    return plain, packed


@pytest.fixture(scope="module")
def adapters():
    """An adapter of random numbers of each kind."""
    read = {}
    for kind in ("lora", "dora", "lokr"):
        denoiser = SMALL["flux1"]()
        LoRA(rank=2, **{kind: True} if kind != "lora" else {}).prepare(denoiser)
        for name, parameter in denoiser.named_parameters():
            if "lora_" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
        read[kind] = extract_adapter(denoiser)
    return read


def test_lora_learns_on_blocks_as_on_their_numbers():
    gradients = []
    for denoiser in both():
        question = example(denoiser)
        torch.manual_seed(1)
        LoRA(rank=2).prepare(denoiser)
        trained = [p for name, p in denoiser.named_parameters() if p.requires_grad]
        for parameter in trained:
            parameter.data += 0.1 * torch.randn_like(parameter)
        denoiser(*question).sample.square().mean().backward()
        gradients.append([parameter.grad for parameter in trained])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6, rtol=1e-4)
    assert max(float(gradient.abs().max()) for gradient in gradients[0]) > 1e-4


@torch.no_grad()
def test_a_lora_file_draws_on_blocks_as_on_their_numbers(adapters):
    plain, packed = both()
    question = example(plain)
    base = plain(*question).sample
    for denoiser in (plain, packed):
        add_adapters(denoiser, [(adapters["lora"], 0.7)])
    answer = packed(*question).sample
    assert torch.equal(answer, plain(*question).sample) and not torch.equal(answer, base)
    with pytest.raises(ConfigError, match=r"merge[\s\S]*model\.packed=false"):
        merged_state(packed)


@pytest.mark.parametrize("kind", ["dora", "lokr"])
def test_adapters_that_compute_with_weights_are_refused_on_blocks(kind, adapters):
    with pytest.raises(ConfigError, match=rf"{kind}[\s\S]*model\.packed=false"):
        add_adapters(both()[1], [(adapters[kind], 1.0)])


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("lora", {}, None),
        ("lora", {"base_precision": "auto"}, None),
        ("textual_inversion", WORD, None),
        ("few_step_lora", {}, None),
        ("lora", {"dora": True}, "DoRA"),
        ("few_step_lora", {"lokr": True}, "LoKr"),
        ("lora", {"base_precision": "int8"}, "pack them again"),
        ("controlnet", {}, "copy of them"),
        ("full", {}, "trains them"),
        ("few_step", {}, "trains them"),
    ],
)
def test_methods_train_on_blocks_or_say_why_they_cannot(name, options, says):
    method = build_method(name, options)
    base_precision.check_blocks({"packed": None}, method)
    if says is None:
        base_precision.check_blocks({"packed": True}, method)
        return
    with pytest.raises(ConfigError, match=says):
        base_precision.check_blocks({"packed": True}, method)


def test_a_run_that_trains_every_weight_refuses_blocks_before_anything_is_read(tmp_path):
    words = ("model=flux1_dev", "model.weights=absent.gguf", "model.packed=true", "method=full")
    with pytest.raises(ConfigError, match=r"method=full[\s\S]*model\.packed"):
        run("train", tmp_path, *words)
