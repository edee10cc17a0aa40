"""Adapters to files and back: every family, every layout, by other programs' loaders too."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.denoisers.test_conformance import SMALL, example
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.denoisers.registry import build_denoiser
from tinyflux_pl.methods import adapter_export, peft_layers
from tinyflux_pl.methods.adapted_network import add_adapters, extract_adapter, merged_state
from tinyflux_pl.methods.adapter_file import read_adapter
from tinyflux_pl.methods.layer_patterns import short_name
from tinyflux_pl.methods.lora import LoRA

KINDS = {"lora": {}, "rslora": {"rslora": True}, "dora": {"dora": True}, "lokr": {"lokr": True}}
CANNOT = {("dora", "kohya"), ("lokr", "diffusers")}  # no one form in it, none at all


class Adapted:
    """A small denoiser of a family, a copy with an adapter of random numbers, and a question."""

    def __init__(self, family, **options):
        torch.manual_seed(0)
        self.denoiser = SMALL[family]().eval()
        for parameter in self.denoiser.parameters():  # a zero at the end would hide the adapter
            parameter.data += 0.02 * torch.randn_like(parameter)
        self.described = self.denoiser.config_dict()
        self.state = {k: v.clone() for k, v in self.denoiser.state_dict().items()}
        self.question = example(self.denoiser)
        self.base = self.answer(self.denoiser)
        LoRA(rank=2, alpha=3.0, **options).prepare(self.denoiser)
        for name, parameter in self.denoiser.named_parameters():
            if "lora_" in name or "lokr_" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
        self.expected = self.answer(self.denoiser)
        self.adapter = extract_adapter(self.denoiser)

    @torch.no_grad()
    def answer(self, denoiser):
        return denoiser(*self.question).sample

    def fresh(self, state=None):
        """The denoiser without an adapter."""
        model = build_denoiser(self.denoiser.name, self.described, self.denoiser.path)
        model.load_state_dict(self.state if state is None else state)
        return model.eval()

    def difference(self, denoiser):
        return float(
            (self.answer(denoiser) - self.expected).abs().max() / self.expected.abs().max()
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", sorted(SMALL))
def test_every_layout_round_trips_and_merges(family, kind, tmp_path):
    adapted = Adapted(family, **KINDS[kind])
    assert adapted.difference(adapted.fresh()) > 1e-3
    for layout in adapter_export.WRITERS:
        fused = any(
            len(p) > 1
            for p in adapted.denoiser.original_layers(list(adapted.adapter.layers)).values()
        )
        if (kind, layout) in CANNOT or (layout == "kohya" and kind == "lokr" and fused):
            with pytest.raises(ConfigError):
                adapter_export.write(adapted.adapter, adapted.denoiser, layout, tmp_path / layout)
            continue
        file = adapter_export.write(adapted.adapter, adapted.denoiser, layout, tmp_path / layout)
        other = adapted.fresh()
        read = read_adapter(file, other)
        assert read.layout == layout
        add_adapters(other, [(read, 1.0)])
        assert adapted.difference(other) <= 2e-6
    merged = adapted.fresh(merged_state(adapted.denoiser))
    assert adapted.difference(merged) <= 2e-6


@pytest.mark.parametrize("family", sorted(SMALL))
def test_scale_zero_equals_the_base_and_scales_are_additive(family):
    adapted = Adapted(family)
    nothing = adapted.fresh()
    add_adapters(nothing, [(adapted.adapter, 0.0)])
    weights = nothing.state_dict()
    assert weights.keys() == adapted.state.keys()
    assert all(torch.equal(weights[key], value) for key, value in adapted.state.items())
    assert not peft_layers.adapted(nothing)
    # with equal weights and layers only the kernels' own rounding is left
    assert (adapted.answer(nothing) - adapted.base).abs().max() <= 2e-6 * adapted.base.abs().max()
    halves = adapted.fresh()
    add_adapters(halves, [(adapted.adapter, 0.75), (adapted.adapter, 0.25)])
    assert adapted.difference(halves) <= 2e-6


def test_peft_reads_an_adapter_exported_for_peft(tmp_path):
    import peft

    for kind in ("lora", "rslora", "dora", "lokr"):
        adapted = Adapted("tinyflux", **KINDS[kind])
        folder = tmp_path / kind
        adapter_export.write(adapted.adapter, adapted.denoiser, "peft", folder)
        other = adapted.fresh()
        wrapped = peft.PeftModel.from_pretrained(other.net, folder)
        other.net = wrapped.get_base_model()
        assert adapted.difference(other.eval()) <= 1e-5


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
@pytest.mark.parametrize(
    ("family", "pipeline"),
    [("sdxl", "StableDiffusionXLPipeline"), ("flux1", "FluxPipeline")],
)
def test_diffusers_reads_an_adapter_exported_for_diffusers(family, pipeline, layout, tmp_path):
    import diffusers

    # of FLUX.1's fused layers diffusers reads kohya's single blocks at their full size alone
    fused = family == "flux1" and layout == "kohya"
    adapted = Adapted(family, **({"targets": ["transformer_blocks.*.attn.*"]} if fused else {}))
    file = adapter_export.write(adapted.adapter, adapted.denoiser, layout, tmp_path)
    other = adapted.fresh()
    loader = getattr(diffusers, pipeline)
    if family == "sdxl":
        state, alphas, *_ = loader.lora_state_dict(load_file(file), unet_config=other.net.config)
        loader.load_lora_into_unet(state, alphas, other.net, low_cpu_mem_usage=False)
    else:
        state, alphas = loader.lora_state_dict(load_file(file), return_alphas=True)
        options = {"network_alphas": alphas, "low_cpu_mem_usage": False}
        loader.load_lora_into_transformer(state, transformer=other.net, **options)
    assert adapted.difference(other.eval()) <= 1e-5


def test_unread_adapter_keys_are_refused_by_name(tmp_path):
    adapted = Adapted("tinyflux")
    file = adapter_export.write(adapted.adapter, adapted.denoiser, "diffusers", tmp_path)
    tensors = load_file(file)
    first = next(iter(tensors))

    def refused(changed, match):
        save_file(changed, tmp_path / "changed.safetensors")
        with pytest.raises(CheckpointMismatch, match=match):
            read_adapter(tmp_path / "changed.safetensors", adapted.fresh())

    refused({**tensors, "transformer.nowhere.lora_A.weight": torch.ones(2, 2)}, "nowhere")
    refused({**tensors, "loss": torch.ones(1)}, "loss")
    refused({**tensors, "text_encoder.x.lora_A.weight": torch.ones(1)}, "change a text encoder")
    refused({k: v for k, v in tensors.items() if k != first}, "not both factors")
    refused({**tensors, first: torch.ones(2, 3)}, "in the network")
    refused({**tensors, first: tensors[first] * torch.nan}, "not finite")


def test_a_peft_file_without_its_settings_is_refused(tmp_path):
    adapted = Adapted("tinyflux")
    file = adapter_export.write(adapted.adapter, adapted.denoiser, "peft", tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["r"] and settings["rank_pattern"]
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(CheckpointMismatch, match=r"no adapter_config\.json"):
        read_adapter(file, adapted.fresh())


def test_gradient_checkpointing_keeps_adapter_gradients_also_with_dropout():
    for dropout in (0.0, 0.5):
        gradients = []
        for checkpointing in (False, True):
            torch.manual_seed(0)
            model = SMALL["tinyflux"]()
            LoRA(rank=2, dropout=dropout).prepare(model)
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.data.normal_(generator=torch.Generator().manual_seed(1))
            if checkpointing:
                model.enable_gradient_checkpointing()
            torch.manual_seed(7)
            model.train()(*example(model)).sample.square().mean().backward()
            gradients.append(
                {short_name(n): p.grad for n, p in model.named_parameters() if p.grad is not None}
            )
        assert gradients[0].keys() == gradients[1].keys() and all(
            "lora_" in name for name in gradients[0]
        )
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)
