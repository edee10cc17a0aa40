"""The adapter: packing, ports, masks, rebuilding from plain data, published sizes."""

import json

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError, CorruptCheckpoint, SpecMismatch
from tinyflux_pl.core.protocols import Denoiser
from tinyflux_pl.core.specs import LatentSpec, TextSpec
from tinyflux_pl.core.types import Conditioning, TextEmbeddings
from tinyflux_pl.denoisers.packing import image_ids, patchify, unpatchify
from tinyflux_pl.denoisers.registry import build_denoiser
from tinyflux_pl.denoisers.tinyflux import build, to_reference_keys
from tinyflux_pl.denoisers.tinyflux_published import build_published
from tinyflux_pl.diffusion.paths import LinearPath

LATENTS, TEXT, PATH = LatentSpec(6, 4), TextSpec(12, 7, 10), LinearPath()
SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "axes_dims_rope": (4, 6, 6),
    "num_double_layers": 1,
    "num_single_layers": 1,
    "lune_hidden_dim": 16,
    "sol_hidden_dim": 16,
    "patch_size": 2,
}


def denoiser(path=PATH, **changes):
    torch.manual_seed(0)
    made = build(LATENTS, TEXT, path, **{"lune_dim": 14, "sol": True, **SIZES, **changes}).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def published(**changes):
    sizes = {key: value for key, value in SIZES.items() if key != "patch_size"}
    return build_published(LATENTS, TEXT, PATH, **{"lune_dim": 14, **sizes, **changes}).eval()


def given(height=8, width=8):
    mask = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
    text = TextEmbeddings(torch.randn(2, 7, 12), mask, torch.randn(2, 10))
    return torch.randn(2, 6, height, width), torch.tensor([0.3, 0.8]), Conditioning(text)


@pytest.mark.parametrize(("height", "width", "patch"), [(8, 12, 2), (4, 16, 4), (3, 5, 1)])
def test_packing_is_exact_and_in_reading_order(height, width, patch):
    latents = torch.randn(2, 3, height, width)
    tokens = patchify(latents, patch)
    assert tokens.shape == (2, height * width // patch**2, 3 * patch**2)
    assert torch.equal(unpatchify(tokens, patch, height, width), latents)
    ids = image_ids(height, width, patch)
    last = tokens.shape[1] - 1
    assert ids[last].tolist() == [0, height // patch - 1, width // patch - 1]
    y, x = (int(i) * patch for i in ids[1, 1:])
    assert torch.equal(tokens[:, 1], latents[:, :, y : y + patch, x : x + patch].flatten(1))


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="patch_size"):
        patchify(torch.randn(1, 3, 5, 4), 2)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 12), (4, 16)])
def test_predicts_latents_and_the_outputs_of_its_heads(height, width):
    made = denoiser()
    answer = made(*given(height, width))
    assert isinstance(made, Denoiser) and made.ports == ("vec", "prior_stats", "prior_map")
    assert answer.sample.shape == (2, 6, height, width)
    shapes = {name: tuple(head.shape) for name, head in answer.heads.items()}
    assert shapes == {"vec": (2, 14), "prior_stats": (2, 4), "prior_map": (2, 8, 8)}


@torch.no_grad()
def test_ports_replace_the_heads_where_their_mask_says():
    made, (x, t, cond) = denoiser(), given()
    alone = made(x, t, cond).sample
    features = {
        "vec": torch.randn(2, 14),
        "prior_stats": torch.rand(2, 4),
        "prior_map": torch.rand(2, 64).softmax(-1).view(2, 8, 8),
    }
    for names in (("vec",), ("prior_stats", "prior_map")):
        ports = {name: features[name] for name in names}
        shown = dict.fromkeys(names, torch.tensor([True, False]))
        taught = made(x, t, Conditioning(cond.text, ports)).sample
        mixed = made(x, t, Conditioning(cond.text, ports, shown)).sample
        assert not torch.allclose(taught, alone, atol=1e-3)
        assert torch.allclose(mixed[0], taught[0], atol=1e-6)
        assert torch.allclose(mixed[1], alone[1], atol=1e-6)


@torch.no_grad()
def test_padding_of_the_text_changes_nothing():
    made, (x, t, cond) = denoiser(), given()
    noisy = cond.text.tokens.masked_fill(~cond.text.mask[..., None], 1e4)
    padded = Conditioning(TextEmbeddings(noisy, cond.text.mask, cond.text.pooled))
    assert torch.equal(made(x, t, padded).sample, made(x, t, cond).sample)


@torch.no_grad()
def test_the_clock_is_the_path_s():
    ours, theirs, (x, t, cond) = denoiser(), denoiser(LinearPath(noise_at=1)), given()
    theirs.load_state_dict(ours.state_dict())
    assert torch.allclose(theirs(x, 1 - t, cond).sample, ours(x, t, cond).sample, atol=1e-4)


def test_without_experts_there_are_no_ports_and_features_are_refused():
    made, (x, t, cond) = denoiser(lune_dim=None, sol=False), given()
    assert made.ports == () and made(x, t, cond).heads == {}
    with pytest.raises(SpecMismatch, match="vec"):
        made(x, t, Conditioning(cond.text, {"vec": torch.randn(2, 14)}))


@torch.no_grad()
def test_is_rebuilt_from_plain_data():
    made, example = denoiser(), given()
    again = build_denoiser("tinyflux", json.loads(json.dumps(made.config_dict())), PATH).eval()
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(*example).sample, made(*example).sample)


def test_unknown_names_and_keys_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="tinyflux"):
        build_denoiser("tinyflx", {}, PATH)
    with pytest.raises(ConfigError, match="mlp_ratio"):
        denoiser(mlp_ratios=2.0)


def test_lora_targets_name_linear_layers_of_every_kind():
    from fnmatch import fnmatchcase

    made = denoiser()
    linear = {
        name for name, module in made.net.named_modules() if isinstance(module, torch.nn.Linear)
    }
    for pattern in made.lora_targets:
        assert any(fnmatchcase(name, pattern) for name in linear), pattern


def test_the_published_size():
    with torch.device("meta"):
        text, latents = TextSpec(768, 128, 768), LatentSpec(16, 8)
        made = build_published(latents, text, PATH)
    assert sum(p.numel() for p in made.parameters()) == 245_347_234
    assert len(list(made.parameters())) == 680 and len(made.net.state_dict()) == 683


@torch.no_grad()
def test_a_published_layout_is_served_and_exported():
    made = published()
    answer = made(*given(8, 12))
    assert answer.sample.shape == (2, 6, 8, 12) and answer.heads["prior_stats"].shape == (2, 3)
    assert to_reference_keys(made).keys() == made.net.state_dict().keys()
    with pytest.raises(ConfigError):
        to_reference_keys(denoiser())


@torch.no_grad()
@pytest.mark.parametrize("beside", [True, False])
def test_published_weights_come_from_a_file_with_or_without_its_config(tmp_path, beside):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    source = published()
    for parameter in source.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    save_file(to_reference_keys(source), tmp_path / "step_1.safetensors")
    if beside:
        (tmp_path / "config.json").write_text(json.dumps(source.net.config.to_dict()))
    loaded = published(weights=str(tmp_path / "step_1.safetensors")).eval()
    inputs = given(8, 12)
    assert torch.equal(loaded(*inputs).sample, source(*inputs).sample)


def test_a_config_json_that_is_torn_is_named(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "step_1.safetensors")
    (tmp_path / "config.json").write_text('{"hidden_size": 3')
    with pytest.raises(CorruptCheckpoint, match=r"not JSON[\s\S]*config\.json"):
        published(weights=str(tmp_path / "step_1.safetensors"))


def test_a_pickle_is_not_opened_as_published_weights(tmp_path):
    from tinyflux_pl.core.errors import HubError

    torch.save({"w": torch.zeros(1)}, tmp_path / "step_1.pt")
    with pytest.raises(HubError, match="not a safetensors file"):
        published(weights=str(tmp_path / "step_1.pt"))


def test_four_statistics_do_not_fit_the_published_network():
    with pytest.raises(SpecMismatch, match="3 of Sol's statistics"):
        published(num_sol_stats=4)
