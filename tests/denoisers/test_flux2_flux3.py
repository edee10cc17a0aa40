"""FLUX.2 and FLUX.3 around diffusers' networks: tokens, ids, references, time, key layouts."""

import pytest
import torch

from tests import releases_flux2 as releases
from tests.denoisers.flux2_flux3_original import original_layout
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, SpecMismatch
from tinyflux_pl.core.files import write_tensors
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.denoisers import flux2, flux3
from tinyflux_pl.denoisers.registry import build_denoiser
from tinyflux_pl.diffusion.paths import LinearPath

LATENT, TEXT = LatentSpec(16, 16), TextSpec(24, 6, 0)
PATH = LinearPath(noise_at=1)
BUILD = {"dtype": "float32", "structure": {}}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conditioning(rows: int = 2, length: int = 6, **more) -> Conditioning:
    tokens = drawn(rows, length, 24, seed=1)
    text = TextEmbeddings(tokens, torch.ones(rows, length, dtype=torch.bool), torch.zeros(rows, 0))
    return Conditioning(text, **more)


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flux2")
    return folder, releases.flux2(folder, guided=True)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flux3")
    return folder, releases.flux3(folder)[0]


@torch.no_grad()
def test_flux2_with_references_equals_its_network(dev):
    folder, pipeline = dev
    model = flux2.build(LATENT, TEXT, PATH, weights=str(folder), **BUILD)
    x, t, scale = drawn(2, 16, 2, 3), torch.tensor([0.9, 0.3]), torch.tensor([4.0, 2.5])
    references = (drawn(2, 16, 3, 2, seed=2), drawn(2, 16, 1, 4, seed=3))
    answer = model(x, t, conditioning(embedded_guidance=scale, references=references)).sample
    packed = [pipeline._pack_latents(picture) for picture in (x, *references)]
    reference_ids = pipeline._prepare_image_ids([r[:1] for r in references]).expand(2, -1, -1)
    expected = pipeline.transformer(
        hidden_states=torch.cat(packed, 1),
        encoder_hidden_states=conditioning().text.tokens,
        timestep=t,
        guidance=scale,
        img_ids=torch.cat([pipeline._prepare_latent_ids(x), reference_ids], 1)[0],
        txt_ids=pipeline._prepare_text_ids(conditioning().text.tokens)[0],
        return_dict=False,
    )[0][:, :6]
    torch.testing.assert_close(
        answer, expected.transpose(1, 2).unflatten(2, (2, 3)), atol=1e-5, rtol=1e-5
    )
    assert not torch.allclose(
        answer, model(x, t, conditioning(embedded_guidance=scale)).sample, atol=1e-3
    )


@torch.no_grad()
def test_flux3_with_references_equals_its_network(three):
    from diffusers.modular_pipelines.flux3.before_denoise import (
        Flux3TextRoPEInputsStep,
        _prepare_image_ids,
    )

    folder, net = three
    model = flux3.build(LATENT, TEXT, PATH, weights=str(folder), **BUILD)
    x, t = drawn(2, 16, 2, 3), torch.tensor([0.9, 0.3])
    references = (drawn(2, 16, 3, 2, seed=2), drawn(2, 16, 1, 4, seed=3))
    ids = [
        _prepare_image_ids(r.shape[-2], r.shape[-1], 0.5, l_coord=-1 - k)
        for k, r in enumerate(references)
    ]
    expected = net(
        hidden_states=x.flatten(2).transpose(1, 2),
        encoder_hidden_states=conditioning().text.tokens,
        timestep=t,
        img_ids=_prepare_image_ids(2, 3, 0.5),
        txt_ids=Flux3TextRoPEInputsStep._prepare_text_ids(conditioning().text.tokens),
        image_cond_hidden_states=torch.cat([r.flatten(2).transpose(1, 2) for r in references], 1),
        image_cond_ids=torch.cat(ids),
        return_dict=False,
    )[0]
    answer = model(x, t, conditioning(references=references)).sample
    torch.testing.assert_close(
        answer, expected.transpose(1, 2).unflatten(2, (2, 3)), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_flux3_reads_each_prompt_at_its_unpadded_length(three):
    model = flux3.build(LATENT, TEXT, PATH, weights=str(three[0]), **BUILD)
    x, t, long = drawn(2, 16, 2, 2), torch.tensor([0.9, 0.3]), conditioning().text
    short = TextEmbeddings(long.tokens[:, :4], long.mask[:, :4], long.pooled)
    both = TextEmbeddings.cat([long.select(slice(0, 1)), short.select(slice(1, 2))])
    separately = torch.cat(
        [
            model(x[:1], t[:1], Conditioning(long[:1])).sample,
            model(x[1:], t[1:], Conditioning(short[1:])).sample,
        ]
    )
    torch.testing.assert_close(
        model(x, t, Conditioning(both)).sample, separately, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("family", ["flux2", "flux3"])
@torch.no_grad()
def test_time_is_not_rounded_in_bf16(family, dev, three):
    module, folder = {"flux2": (flux2, dev[0]), "flux3": (flux3, three[0])}[family]
    model = module.build(LATENT, TEXT, PATH, weights=str(folder), dtype="bfloat16", structure={})
    near = torch.tensor([0.9990, 0.9991])  # one value in bf16
    seen = []
    embedder = (
        model.net.time_guidance_embed.timestep_embedder
        if family == "flux2"
        else model.net.timestep_embedder
    )
    embedder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(drawn(2, 16, 2, 2), near, conditioning())
    assert near.bfloat16().unique().numel() == 1 and not torch.equal(*seen[0])


@pytest.mark.parametrize("family", ["flux2", "flux3"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@torch.no_grad()
def test_a_single_file_in_the_original_layout_loads_strictly(family, prefix, dev, three, tmp_path):
    module, net = {"flux2": (flux2, dev[1].transformer), "flux3": (flux3, three[1])}[family]
    structure = {k: v for k, v in net.config.items() if not k.startswith("_")}
    tensors = {prefix + key: value for key, value in original_layout(family, net).items()}
    write_tensors(tmp_path / "one.safetensors", tensors)
    model = module.build(
        LATENT,
        TEXT,
        PATH,
        weights=str(tmp_path / "one.safetensors"),
        dtype="float32",
        structure=structure,
    )
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in model.net.state_dict().items())
    lost = tensors.pop(
        next(key for key in tensors if key.endswith("blocks.1.norm.query_norm.scale"))
    )
    write_tensors(tmp_path / "lacking.safetensors", {**tensors, f"{prefix}stray.weight": lost})
    with pytest.raises(CheckpointMismatch, match=r"1 missing: .*norm_q.*1 unexpected: .*stray"):
        module.build(
            LATENT,
            TEXT,
            PATH,
            weights=str(tmp_path / "lacking.safetensors"),
            dtype="float32",
            structure=structure,
        )


@torch.no_grad()
def test_a_new_inpaint_input_leaves_the_output_unchanged_until_trained(dev):
    base = flux2.build(LATENT, TEXT, PATH, weights=str(dev[0]), **BUILD)
    wide = flux2.build(LATENT, TEXT, PATH, weights=str(dev[0]), inpaint=True, **BUILD)
    x, t, inpaint = drawn(2, 16, 2, 3), torch.tensor([0.9, 0.3]), drawn(2, 16 + 256, 2, 3, seed=5)
    assert torch.equal(
        wide(x, t, conditioning(inpaint=inpaint)).sample, base(x, t, conditioning()).sample
    )
    wide.inpaint_in.weight.normal_()
    assert not torch.allclose(
        wide(x, t, conditioning(inpaint=inpaint)).sample,
        base(x, t, conditioning()).sample,
        atol=1e-3,
    )
    again = build_denoiser(wide.name, wide.config_dict(), PATH)
    again.load_state_dict(wide.state_dict())
    with pytest.raises(ConfigError, match="was given no masked picture"):
        wide(x, t, conditioning())


def test_a_saved_description_rebuilds_the_network(dev, three):
    for module, folder in ((flux2, dev[0]), (flux3, three[0])):
        model = module.build(LATENT, TEXT, PATH, weights=str(folder), **BUILD)
        again = build_denoiser(model.name, model.config_dict(), PATH)
        assert again.config_dict() == model.config_dict()
        again.load_state_dict(model.state_dict())


def test_incompatible_parts_and_inputs_are_refused(dev, tmp_path):
    folder = str(dev[0])
    with pytest.raises(SpecMismatch, match="latent channels is 16"):
        flux2.build(LatentSpec(8, 16), TEXT, PATH, weights=folder, **BUILD)
    with pytest.raises(SpecMismatch, match="text width is 24"):
        flux2.build(LATENT, TextSpec(8, 6, 0), PATH, weights=folder, **BUILD)
    with pytest.raises(SpecMismatch, match="noise at t = 1"):
        flux2.build(LATENT, TEXT, LinearPath(), weights=folder, **BUILD)
    with pytest.raises(ConfigError, match="65504"):
        flux2.build(LATENT, TEXT, PATH, weights=folder, dtype="float16", structure={})
    releases.flux3(tmp_path, flow_map=True)
    with pytest.raises(ConfigError, match="step-distilled"):
        flux3.build(LATENT, TEXT, PATH, weights=str(tmp_path), **BUILD)
