"""The adapter of sequences: time, position ids, padding, specs, rebuilding, codec and encoder."""

import json
from dataclasses import replace

import pytest
import torch

from tinyflux_pl.codecs.identity import Identity
from tinyflux_pl.codecs.registry import build_codec
from tinyflux_pl.core.errors import ConfigError, SpecMismatch
from tinyflux_pl.core.protocols import Codec, Denoiser, TextEncoder
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.denoisers.flux_core import build
from tinyflux_pl.denoisers.registry import build_denoiser
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.text.precomputed_tokens import PrecomputedTokens
from tinyflux_pl.text.registry import build_text

LATENTS, TEXT, PATH = LatentSpec(4, 1), TextSpec(5 + 3, 7, 2, ids=3), LinearPath(noise_at=1)
SIZES = {
    "hidden_size": 32,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [4, 6, 6],
}


def denoiser(path=PATH, text=TEXT, **changes):
    torch.manual_seed(0)
    model = build(LATENTS, text, path, **{**SIZES, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_inputs(height=6, width=1):
    mask = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
    text = TextEmbeddings(torch.randn(2, 7, 8), mask, torch.randn(2, 2))
    return torch.randn(2, 4, height, width), torch.tensor([0.3, 0.8]), Conditioning(text)


@torch.no_grad()
def test_the_denoiser_returns_the_output_of_its_network():
    model, (x, t, cond) = denoiser(), make_inputs(2, 3)
    assert isinstance(model, Denoiser)
    row, column = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 0, 1, 2])
    ids = torch.stack((torch.zeros(6), row, column), -1)[None]
    tokens = cond.text.tokens
    alone = model.net(
        x.flatten(2).mT,
        ids,
        tokens[..., :5],
        tokens[..., 5:],
        t,
        cond.text.pooled,
        None,
        None,
        cond.text.mask,
    )
    assert torch.equal(model(x, t, cond).sample, alone.mT.reshape(x.shape))


@torch.no_grad()
def test_network_time_follows_the_convention_of_the_path():
    actual, expected, (x, t, cond) = denoiser(), denoiser(LinearPath(noise_at=0)), make_inputs()
    expected.load_state_dict(actual.state_dict())
    assert torch.allclose(expected(x, 1 - t, cond).sample, actual(x, t, cond).sample, atol=1e-4)


@torch.no_grad()
def test_target_ids_position_the_target_and_padding_has_no_influence():
    model, (x, t, cond) = denoiser(), make_inputs()
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    ids = torch.randn(2, 6, 3)
    placed = Conditioning(cond.text, target_ids=ids, target_mask=mask)
    out = model(x, t, placed).sample
    assert not torch.allclose(out, model(x, t, cond).sample, atol=1e-3)
    assert (out[1, :, 4:] == 0).all()
    noisy = x.masked_fill(~mask[:, None, :, None], 1e4)
    assert torch.equal(model(noisy, t, placed).sample, out)


@torch.no_grad()
def test_text_without_position_ids_is_numbered_in_order():
    model, (x, t, cond) = denoiser(text=TextSpec(8, 7, 2)), make_inputs()
    flipped = TextEmbeddings(cond.text.tokens[:1].flip(1), cond.text.mask[:1], cond.text.pooled[:1])
    plain = TextEmbeddings(cond.text.tokens[:1], cond.text.mask[:1], cond.text.pooled[:1])
    one, other = (
        model(x[:1], t[:1], Conditioning(embeddings)).sample for embeddings in (plain, flipped)
    )
    assert not torch.allclose(one, other, atol=1e-3)


@torch.no_grad()
def test_the_denoiser_is_rebuilt_from_its_config():
    model, example = denoiser(), make_inputs()
    again = build_denoiser("flux_core", json.loads(json.dumps(model.config_dict())), PATH).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(*example).sample, model(*example).sample)


@torch.no_grad()
def test_the_guidance_input_defaults_to_the_training_value():
    model, (x, t, cond) = denoiser(guidance_embed=True, training_guidance=2.0), make_inputs()
    assert model.reads_guidance and not denoiser().reads_guidance
    default = model(x, t, cond).sample
    explicit = model(x, t, replace(cond, embedded_guidance=torch.tensor([2.0, 7.0]))).sample
    assert torch.equal(explicit[0], default[0]) and not torch.allclose(
        explicit[1], default[1], atol=1e-3
    )
    again = build_denoiser("flux_core", json.loads(json.dumps(model.config_dict())), PATH).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x, t, cond).sample, default)
    with pytest.raises(ConfigError, match="nothing reads training_guidance"):
        denoiser(training_guidance=2.0)


def test_incompatible_parts_and_inputs_are_refused():
    with pytest.raises(SpecMismatch, match="3 columns, the network 2 axes"):
        denoiser(axes_dim=[6, 10])
    with pytest.raises(SpecMismatch, match="vec"):
        x, t, cond = make_inputs()
        denoiser()(x, t, Conditioning(cond.text, {"vec": torch.randn(2, 14)}))


@torch.no_grad()
@pytest.mark.parametrize(("axes", "columns"), [([16], 1), ([6, 10], 2), ([2, 2, 6, 6], 4)])
def test_position_ids_may_have_any_number_of_axes(axes, columns):
    model = denoiser(text=TextSpec(5 + columns, 7, 2, ids=columns), axes_dim=axes)
    seen = []
    model.net.pe_embedder.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    text = TextEmbeddings(
        torch.randn(2, 7, 5 + columns), torch.ones(2, 7, dtype=torch.bool), torch.randn(2, 2)
    )
    assert (
        model(torch.randn(2, 4, 2, 3), torch.tensor([0.1, 0.2]), Conditioning(text))
        .sample.isfinite()
        .all()
    )
    target = seen[0][0, 7:]
    assert target.unique(dim=0).shape == (6, columns) and (target[:, :-2] == 0).all()
    assert target[4].tolist() == ([4.0] if columns == 1 else [0.0] * (columns - 2) + [1.0, 1.0])


def test_gradient_checkpointing_reaches_the_network():
    model = denoiser()
    model.enable_gradient_checkpointing()
    assert model.net.gradient_checkpointing


def test_lora_targets_name_linear_layers_of_every_kind():
    from fnmatch import fnmatchcase

    model = denoiser()
    linear = {
        name for name, module in model.net.named_modules() if isinstance(module, torch.nn.Linear)
    }
    for pattern in model.lora_targets:
        assert any(fnmatchcase(name, pattern) for name in linear), pattern


def test_muon_optimizes_the_matrices_of_the_blocks():
    from tinyflux_pl.training.optimizers import split_by_role

    model = denoiser()
    names = {id(p): name for name, p in model.named_parameters()}
    hidden, edge, _ = ({names[id(p)] for p in part} for part in split_by_role(model))
    assert {name.split(".")[-2] for name in hidden} == {
        "qkv",
        "proj",
        "0",
        "2",
        "linear1",
        "linear2",
    }
    assert len(hidden) == 2 * 4 + 2 and all(
        "blocks" not in name or ".lin." in name for name in edge
    )


def test_the_codec_normalises_channels_and_is_rebuilt():
    codec = Identity(6, [1.0, -2.0], [2.0, 0.5], [[0.0, 0.0, 1.0]])
    assert (
        isinstance(codec, Codec)
        and codec.latent_spec == LatentSpec(2, 1)
        and codec.image_size == (6, 1)
    )
    target = torch.randn(3, 2, 6, 1)
    latents = codec.encode(target)
    assert torch.allclose(latents[:, 1], (target[:, 1] + 2.0) / 0.5)
    again = build_codec("identity", json.loads(json.dumps(codec.config())))
    assert torch.allclose(again.decode(latents), target, atol=1e-6) and again.ids == codec.ids
    with pytest.raises(SpecMismatch, match="3 channels"):
        codec.encode(torch.randn(1, 3, 6, 1))


def test_conditions_keep_their_position_ids_through_padding_dropout_and_selection():
    text = PrecomputedTokens(4, 3, [1.0], [2.0], [0.0], [1.0])
    assert isinstance(text, TextEncoder) and text.text_spec == TextSpec(4, 4, 1, ids=3)
    ids = torch.arange(24.0).reshape(2, 4, 3)
    mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    embeddings = text.embeddings(torch.full((2, 4, 1), 5.0), ids, mask, torch.zeros(2, 1))
    assert (embeddings.tokens[mask][:, 0] == 2.0).all() and torch.equal(
        embeddings.tokens[mask][:, 1:], ids[mask]
    )
    assert (embeddings.tokens[~mask] == 0).all()
    dropped = embeddings.where(torch.tensor([True, False]), text.null())
    assert torch.equal(dropped.tokens[0], embeddings.tokens[0]) and (dropped.tokens[1] == 0).all()
    assert dropped.mask[1].tolist() == [True, False, False, False]
    again = build_text("given", json.loads(json.dumps(text.config())))
    assert again.fingerprint() == text.fingerprint()
    with pytest.raises(ConfigError, match="condition=FILE"):
        again.encode(["a red circle"])
    with pytest.raises(SpecMismatch, match="condition is 2 wide, in training it was 1"):
        text.embeddings(torch.zeros(2, 4, 2), ids, mask, torch.zeros(2, 1))
