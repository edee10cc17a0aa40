"""Adapters to files and back: every family, every layout, by other programs' loaders too."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.denoisers.test_conformance import SMALL, asked
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.denoisers.registry import build_denoiser
from tinyflux_pl.methods import adapter_export
from tinyflux_pl.methods.adapted_network import merged_state, put_in, read_out
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
        self.question = asked(self.denoiser)
        self.base = self.answer(self.denoiser)
        LoRA(rank=2, alpha=3.0, **options).prepare(self.denoiser)
        for name, parameter in self.denoiser.named_parameters():
            if "lora_" in name or "lokr_" in name:
                parameter.data += 0.1 * torch.randn_like(parameter)
        self.expected = self.answer(self.denoiser)
        self.adapter = read_out(self.denoiser)

    @torch.no_grad()
    def answer(self, denoiser):
        return denoiser(*self.question).sample

    def fresh(self, state=None):
        """The denoiser without an adapter."""
        made = build_denoiser(self.denoiser.name, self.described, self.denoiser.path)
        made.load_state_dict(self.state if state is None else state)
        return made.eval()

    def difference(self, denoiser):
        return float(
            (self.answer(denoiser) - self.expected).abs().max() / self.expected.abs().max()
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", sorted(SMALL))
def test_every_layout_comes_back_and_merges(family, kind, tmp_path):
    made = Adapted(family, **KINDS[kind])
    assert made.difference(made.fresh()) > 1e-3
    for layout in adapter_export.WRITERS:
        fused = any(
            len(p) > 1 for p in made.denoiser.original_layers(list(made.adapter.layers)).values()
        )
        if (kind, layout) in CANNOT or (layout == "kohya" and kind == "lokr" and fused):
            with pytest.raises(ConfigError):
                adapter_export.write(made.adapter, made.denoiser, layout, tmp_path / layout)
            continue
        file = adapter_export.write(made.adapter, made.denoiser, layout, tmp_path / layout)
        other = made.fresh()
        read = read_adapter(file, other)
        assert read.layout == layout
        put_in(other, [(read, 1.0)])
        assert made.difference(other) <= 2e-6
    merged = made.fresh(merged_state(made.denoiser))
    assert made.difference(merged) <= 2e-6


@pytest.mark.parametrize("family", sorted(SMALL))
def test_scale_zero_is_the_base_and_scales_add_up(family):
    made = Adapted(family)
    nothing = made.fresh()
    put_in(nothing, [(made.adapter, 0.0)])
    assert torch.equal(made.answer(nothing), made.base)
    halves = made.fresh()
    put_in(halves, [(made.adapter, 0.75), (made.adapter, 0.25)])
    assert made.difference(halves) <= 2e-6


def test_peft_itself_reads_what_is_written_for_it(tmp_path):
    import peft

    for kind in ("lora", "rslora", "dora", "lokr"):
        made = Adapted("tinyflux", **KINDS[kind])
        folder = tmp_path / kind
        adapter_export.write(made.adapter, made.denoiser, "peft", folder)
        other = made.fresh()
        wrapped = peft.PeftModel.from_pretrained(other.net, folder)
        other.net = wrapped.get_base_model()
        assert made.difference(other.eval()) <= 1e-5


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
@pytest.mark.parametrize(
    ("family", "pipeline"),
    [("sdxl", "StableDiffusionXLPipeline"), ("flux1", "FluxPipeline")],
)
def test_diffusers_itself_reads_what_is_written_for_it(family, pipeline, layout, tmp_path):
    import diffusers

    # of FLUX.1's fused layers diffusers reads kohya's single blocks at their full size alone
    fused = family == "flux1" and layout == "kohya"
    made = Adapted(family, **({"targets": ["transformer_blocks.*.attn.*"]} if fused else {}))
    file = adapter_export.write(made.adapter, made.denoiser, layout, tmp_path)
    other = made.fresh()
    loader = getattr(diffusers, pipeline)
    if family == "sdxl":
        state, alphas, *_ = loader.lora_state_dict(load_file(file), unet_config=other.net.config)
        loader.load_lora_into_unet(state, alphas, other.net, low_cpu_mem_usage=False)
    else:
        state, alphas = loader.lora_state_dict(load_file(file), return_alphas=True)
        options = {"network_alphas": alphas, "low_cpu_mem_usage": False}
        loader.load_lora_into_transformer(state, transformer=other.net, **options)
    assert made.difference(other.eval()) <= 1e-5


def test_what_nothing_reads_is_refused_by_name(tmp_path):
    made = Adapted("tinyflux")
    file = adapter_export.write(made.adapter, made.denoiser, "diffusers", tmp_path)
    tensors = load_file(file)
    first = next(iter(tensors))

    def refused(changed, match):
        save_file(changed, tmp_path / "changed.safetensors")
        with pytest.raises(CheckpointMismatch, match=match):
            read_adapter(tmp_path / "changed.safetensors", made.fresh())

    refused({**tensors, "transformer.nowhere.lora_A.weight": torch.ones(2, 2)}, "nowhere")
    refused({**tensors, "loss": torch.ones(1)}, "loss")
    refused({**tensors, "text_encoder.x.lora_A.weight": torch.ones(1)}, "change a text encoder")
    refused({k: v for k, v in tensors.items() if k != first}, "not both factors")
    refused({**tensors, first: torch.ones(2, 3)}, "in the network")
    refused({**tensors, first: tensors[first] * torch.nan}, "not finite")


def test_a_peft_file_without_its_settings_is_refused(tmp_path):
    made = Adapted("tinyflux")
    file = adapter_export.write(made.adapter, made.denoiser, "peft", tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert settings["r"] and settings["rank_pattern"]
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(CheckpointMismatch, match=r"no adapter_config\.json"):
        read_adapter(file, made.fresh())


def test_gradient_checkpointing_gives_an_adapter_the_same_gradients_with_dropout_too():
    for dropout in (0.0, 0.5):
        found = []
        for checkpointing in (False, True):
            torch.manual_seed(0)
            made = SMALL["tinyflux"]()
            LoRA(rank=2, dropout=dropout).prepare(made)
            for name, parameter in made.named_parameters():
                if "lora_B" in name:
                    parameter.data.normal_(generator=torch.Generator().manual_seed(1))
            if checkpointing:
                made.enable_gradient_checkpointing()
            torch.manual_seed(7)
            made.train()(*asked(made)).sample.square().mean().backward()
            found.append(
                {short_name(n): p.grad for n, p in made.named_parameters() if p.grad is not None}
            )
        assert found[0].keys() == found[1].keys() and all("lora_" in name for name in found[0])
        for name, gradient in found[0].items():
            torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)
