"""Adapters of TinyFlux: presets, patterns and adapted outputs equal to the original's."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.parity.test_tinyflux_network import Case, close
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.denoisers.tinyflux import TinyFluxDenoiser
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.methods.adapted_network import add_adapters, merged_state
from tinyflux_pl.methods.adapter_file import read_adapter
from tinyflux_pl.methods.layer_patterns import matching
from tinyflux_pl.methods.layer_plan import LayerPlan, plan_layers
from tinyflux_pl.methods.lora import LoRA
from tinyflux_pl.methods.lora_presets import PRESETS
from tinyflux_pl.training.optimizers import adamw, build_optimizer

DATA = Path(__file__).parent / "data"
RECORDED = json.loads((DATA / "tinyfluxfn_lora_presets.json").read_text())
PUBLISHED = list(RECORDED["full"]["layers"])
KINDS = ["double_blocks.*.attn.*_*", "single_blocks.*.attn.*", "single_blocks.*.mlp.*"]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_selects_the_layers_of_the_original(name):
    plans = plan_layers(PUBLISHED, PRESETS[name], LayerPlan(), all_must_hit=False)
    layers = {k: [p.rank, p.alpha, p.lr_scale, p.depth, p.dropout] for k, p in plans.items()}
    assert layers == RECORDED[name]["layers"]


@pytest.mark.parametrize("pattern", sorted(RECORDED["patterns"]))
def test_a_pattern_matches_the_layers_of_the_original(pattern):
    assert set(matching(pattern, PUBLISHED)) == set(RECORDED["patterns"][pattern])


@pytest.fixture
def recorded():
    """The original's tensors, its layer names, its configuration, and the network's inputs."""
    with safe_open(DATA / "tinyfluxfn_lora.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, file.metadata()


@pytest.fixture
def case():
    return Case("full")


def around(case) -> TinyFluxDenoiser:
    config = case.net.config
    latents = LatentSpec(config.in_channels, 8)
    text = TextSpec(config.joint_attention_dim, 8, config.pooled_projection_dim)
    denoiser = TinyFluxDenoiser(config, latents, text, LinearPath(noise_at=0))
    denoiser.net = case.net
    return denoiser.eval()


def output(denoiser, case):
    left_out = ("lune_features", "sol_stats", "sol_spatial", "expert_features", "txt_ids")
    # in fp64: the original's own two outputs, equal but for rounding, differ by 1.4e-5
    inputs = {
        key: value.double() if value.is_floating_point() else value
        for key, value in case.inputs.items()
        if key not in left_out
    }
    with torch.no_grad():
        return denoiser.double().net(**inputs)


@torch.no_grad()
def test_an_original_adapter_reproduces_its_outputs_attached_and_merged(recorded, case, tmp_path):
    tensors, metadata = recorded
    adapter_tensors = {
        k.removeprefix("lora."): v for k, v in tensors.items() if k.startswith("lora.")
    }
    save_file(
        adapter_tensors, tmp_path / "lora.safetensors", {"lora_config": metadata["lora_config"]}
    )
    denoiser = around(case)
    adapter = read_adapter(tmp_path / "lora.safetensors", denoiser)
    assert adapter.layout == "tinyflux"
    add_adapters(denoiser, [(adapter, 1.0)])
    close(output(denoiser, case), tensors["output.adapted"])
    state = merged_state(denoiser)
    plain = around(Case("full"))
    plain.load_state_dict(state)
    close(output(plain, case), tensors["output.merged"])


def test_original_targets_reproduce_its_shapes_and_learning_rate_groups(recorded, case):
    tensors, metadata = recorded
    config = json.loads(metadata["lora_config"])
    defaults = config["defaults"]
    method = LoRA(rank=defaults["rank"], alpha=defaults["alpha"], targets=KINDS + config["targets"])
    denoiser = around(case)
    plans = method.plan(denoiser)
    paths = set(json.loads(metadata["layer_paths"]).values())
    assert plans.keys() == paths
    for name, plan in plans.items():
        key = f"lora.{name.replace('.', '_')}.lora_A"
        stacked = [tensors[k] for k in tensors if k == key or k.startswith(f"{key}.")]
        assert [len(a) for a in stacked] == [plan.rank] * plan.depth
    method.prepare(denoiser)
    optimizer = build_optimizer(
        denoiser, lambda module: adamw(module, lr=1e-4), method.rates(denoiser)
    )
    groups = [(g["lr"], sum(p.numel() for p in g["params"])) for g in optimizer.param_groups]
    expected = json.loads(metadata["param_groups_base_lr_1e-4"])
    assert groups == [(pytest.approx(rate), count) for _, rate, count in expected]
