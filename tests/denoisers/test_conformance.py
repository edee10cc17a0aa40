"""Promises of every registered denoiser; a new one is tested by its registry entry."""

import json
from copy import deepcopy
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tests import releases_stability
from tests.denoisers import test_flux_core, test_fluxflow, test_tinyflux, test_unet
from tests.house.source import ROOT
from tests.releases import CLIP_WIDTH, T5_WIDTH
from tests.releases_flux1 import STRUCTURE
from tinyflux_pl.core.block_stack import skipping
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.denoisers import flux1, flux2, flux3, sd3, sdxl
from tinyflux_pl.denoisers.flux3 import Flux3Denoiser
from tinyflux_pl.denoisers.registry import build_denoiser, denoiser_class, denoiser_names
from tinyflux_pl.diffusion.paths import LinearPath, VPPath

RANDOM = {"dtype": "float32", "random_weights": True}
STRAIGHT = LinearPath(noise_at=1)
TOKENS = dict(
    in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2
)
TOKENS |= dict(joint_attention_dim=24, axes_dims_rope=(4, 4, 4, 4))
FLUX2 = dict(**TOKENS, timestep_guidance_channels=16, guidance_embeds=True)
FLUX3 = dict(**TOKENS, cond_in_channels=16, timestep_channels=16)


def released(module, latents, text, path, structure):
    return lambda: module.build(latents, text, path, structure=structure, **RANDOM)


SMALL = {
    "tinyflux": test_tinyflux.denoiser,
    "flux_core": test_flux_core.denoiser,
    "unet": test_unet.small,
    "fluxflow": test_fluxflow.small,
    "flux1": released(
        flux1, LatentSpec(16, 8), TextSpec(T5_WIDTH, 6, CLIP_WIDTH), STRAIGHT, STRUCTURE
    ),
    "flux2": released(flux2, LatentSpec(16, 16), TextSpec(24, 6, 0), STRAIGHT, FLUX2),
    "flux3": released(flux3, LatentSpec(16, 16), TextSpec(24, 6, 0), STRAIGHT, FLUX3),
    "sd3": released(sd3, LatentSpec(16, 8), TextSpec(32, 9, 20), STRAIGHT, releases_stability.SD35),
    "sdxl": released(
        sdxl, LatentSpec(4, 8), TextSpec(24, 77, 10), VPPath(), releases_stability.SDXL
    ),
}


def of_its_yaml(name):
    """The network of conf/model/NAME.yaml: of a denoiser that has no small one above."""
    options = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "model" / f"{name}.yaml"))
    module = import_module(f"tinyflux_pl.denoisers.{name}")
    assert options.pop("_target_") == f"{module.__name__}.build"
    return module.build(LatentSpec(12, 2), TextSpec(24, 6, 24), STRAIGHT, **options)


@pytest.fixture(scope="module", params=denoiser_names())
def denoiser(request):
    torch.manual_seed(0)
    small = SMALL.get(request.param)
    model = (small() if small else of_its_yaml(request.param)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # zero-initialised ends would answer 0 to everything
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def example(denoiser, rows=3):
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(rows, denoiser.latent_spec.channels, 8, 8, generator=draw)
    spec = denoiser.text_spec
    tokens = torch.randn(rows, spec.length, spec.width, generator=draw)
    text = TextEmbeddings(
        tokens, torch.ones(rows, spec.length).bool(), torch.randn(rows, spec.pooled, generator=draw)
    )
    return x, torch.linspace(0.2, 0.9, rows), Conditioning(text)


@torch.no_grad()
def test_every_denoiser_meets_the_protocol_and_keeps_the_input_shape(denoiser):
    x, t, cond = example(denoiser)
    assert isinstance(denoiser, Denoiser) and denoiser_class(denoiser.name) is type(denoiser)
    answer = denoiser(x, t, cond).sample
    assert answer.shape == x.shape and answer.isfinite().all() and answer.abs().max() > 1e-3


@torch.no_grad()
def test_a_prediction_does_not_depend_on_the_rest_of_the_batch(denoiser):
    x, t, cond = example(denoiser)
    joint = denoiser(x, t, cond).sample
    for i in range(len(x)):
        rows = slice(i, i + 1)
        alone = denoiser(x[rows], t[rows], cond.rows(lambda part, rows=rows: part[rows])).sample
        torch.testing.assert_close(alone, joint[rows], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_a_prediction_depends_on_time_and_text(denoiser):
    x, t, cond = example(denoiser)
    before = denoiser(x, t, cond).sample
    assert not torch.allclose(before, denoiser(x, t + 0.05, cond).sample, atol=1e-5)
    other = replace(cond, text=replace(cond.text, tokens=cond.text.tokens.flip(0)))
    assert not torch.allclose(before, denoiser(x, t, other).sample, atol=1e-5)


@torch.no_grad()
def test_every_denoiser_is_rebuilt_from_its_config(denoiser):
    described = json.loads(json.dumps(denoiser.config_dict()))
    again = build_denoiser(denoiser.name, described, denoiser.path).eval()
    again.load_state_dict(denoiser.state_dict())
    x, t, cond = example(denoiser)
    assert torch.equal(again(x, t, cond).sample, denoiser(x, t, cond).sample)
    assert json.loads(json.dumps(again.config_dict())) == described


def test_unreadable_conditioning_is_refused_instead_of_ignored(denoiser):
    x, t, cond = example(denoiser)
    with pytest.raises(SpecMismatch, match="no such port"):
        denoiser(x, t, replace(cond, ports={"nobody": x}))
    if not denoiser.inpaint_channels:
        with pytest.raises(ConfigError, match="does not inpaint"):
            denoiser(x, t, replace(cond, inpaint=x))
    if denoiser.reads_references:
        with torch.no_grad():
            before, after = (
                denoiser(x, t, cond).sample,
                denoiser(x, t, replace(cond, references=(x.flip(0),))).sample,
            )
        assert after.shape == x.shape and not torch.allclose(before, after, atol=1e-5)
    else:
        with pytest.raises(ConfigError, match="no reference pictures"):
            denoiser(x, t, replace(cond, references=(x,)))


def test_skipping_a_block_equals_removing_it(denoiser):
    """Compared with the network without the block; a UNet's blocks need one another."""
    blocks = denoiser.block_stack()
    if not blocks:
        return
    x, t, cond = example(denoiser)
    with torch.no_grad():
        before = denoiser(x, t, cond).sample
        with skipping(blocks, [0]):
            skipped = denoiser(x, t, cond).sample
        assert torch.equal(denoiser(x, t, cond).sample, before)
        shorter = deepcopy(denoiser)
        stack = next(m for m in shorter.modules() if isinstance(m, nn.ModuleList) and len(m) > 0)
        if isinstance(denoiser, Flux3Denoiser):
            stack = shorter.net.single_transformer_blocks
        del stack[0]
        assert torch.equal(skipped, shorter(x, t, cond).sample)
    assert not torch.equal(skipped, before)


def test_gradient_checkpointing_changes_no_gradient(denoiser):
    x, t, cond = example(denoiser)
    description = denoiser.config_dict(), denoiser.state_dict()
    gradients = []
    for checkpointing in (False, True):
        net = build_denoiser(denoiser.name, description[0], denoiser.path)
        net.load_state_dict(description[1])
        if checkpointing:
            net.enable_gradient_checkpointing()
        torch.manual_seed(0)
        net.train()(x, t, cond).sample.square().mean().backward()
        gradients.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)
