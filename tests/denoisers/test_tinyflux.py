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
    model = build(LATENTS, TEXT, path, **{"lune_dim": 14, "sol": True, **SIZES, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def published(**changes):
    sizes = {key: value for key, value in SIZES.items() if key != "patch_size"}
    return build_published(LATENTS, TEXT, PATH, **{"lune_dim": 14, **sizes, **changes}).eval()


def make_inputs(height=8, width=8):
    mask = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
    text = TextEmbeddings(torch.randn(2, 7, 12), mask, torch.randn(2, 10))
    return torch.randn(2, 6, height, width), torch.tensor([0.3, 0.8]), Conditioning(text)


@pytest.mark.parametrize(("height", "width", "patch"), [(8, 12, 2), (4, 16, 4), (3, 5, 1)])
def test_packing_is_invertible_and_row_major(height, width, patch):
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
    model = denoiser()
    answer = model(*make_inputs(height, width))
    assert isinstance(model, Denoiser) and model.ports == ("vec", "prior_stats", "prior_map")
    assert answer.sample.shape == (2, 6, height, width)
    shapes = {name: tuple(head.shape) for name, head in answer.heads.items()}
    assert shapes == {"vec": (2, 14), "prior_stats": (2, 4), "prior_map": (2, 8, 8)}


@torch.no_grad()
def test_ports_replace_the_heads_where_their_mask_says():
    model, (x, t, cond) = denoiser(), make_inputs()
    alone = model(x, t, cond).sample
    features = {
        "vec": torch.randn(2, 14),
        "prior_stats": torch.rand(2, 4),
        "prior_map": torch.rand(2, 64).softmax(-1).view(2, 8, 8),
    }
    for names in (("vec",), ("prior_stats", "prior_map")):
        ports = {name: features[name] for name in names}
        present = dict.fromkeys(names, torch.tensor([True, False]))
        taught = model(x, t, Conditioning(cond.text, ports)).sample
        mixed = model(x, t, Conditioning(cond.text, ports, present)).sample
        assert not torch.allclose(taught, alone, atol=1e-3)
        assert torch.allclose(mixed[0], taught[0], atol=1e-6)
        assert torch.allclose(mixed[1], alone[1], atol=1e-6)


@torch.no_grad()
def test_text_padding_has_no_influence():
    model, (x, t, cond) = denoiser(), make_inputs()
    noisy = cond.text.tokens.masked_fill(~cond.text.mask[..., None], 1e4)
    padded = Conditioning(TextEmbeddings(noisy, cond.text.mask, cond.text.pooled))
    assert torch.equal(model(x, t, padded).sample, model(x, t, cond).sample)


@torch.no_grad()
def test_network_time_follows_the_convention_of_the_path():
    actual, expected, (x, t, cond) = denoiser(), denoiser(LinearPath(noise_at=1)), make_inputs()
    expected.load_state_dict(actual.state_dict())
    assert torch.allclose(expected(x, 1 - t, cond).sample, actual(x, t, cond).sample, atol=1e-4)


def test_without_experts_there_are_no_ports_and_features_are_refused():
    model, (x, t, cond) = denoiser(lune_dim=None, sol=False), make_inputs()
    assert model.ports == () and model(x, t, cond).heads == {}
    with pytest.raises(SpecMismatch, match="vec"):
        model(x, t, Conditioning(cond.text, {"vec": torch.randn(2, 14)}))


@torch.no_grad()
def test_the_denoiser_is_rebuilt_from_its_config():
    model, example = denoiser(), make_inputs()
    again = build_denoiser("tinyflux", json.loads(json.dumps(model.config_dict())), PATH).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(*example).sample, model(*example).sample)


def test_unknown_names_and_keys_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="tinyflux"):
        build_denoiser("tinyflx", {}, PATH)
    with pytest.raises(ConfigError, match="mlp_ratio"):
        denoiser(mlp_ratios=2.0)


def test_lora_targets_name_linear_layers_of_every_kind():
    from fnmatch import fnmatchcase

    model = denoiser()
    linear = {
        name for name, module in model.net.named_modules() if isinstance(module, torch.nn.Linear)
    }
    for pattern in model.lora_targets:
        assert any(fnmatchcase(name, pattern) for name in linear), pattern


def test_the_default_network_has_the_published_size():
    with torch.device("meta"):
        text, latents = TextSpec(768, 128, 768), LatentSpec(16, 8)
        model = build_published(latents, text, PATH)
    assert sum(p.numel() for p in model.parameters()) == 245_347_234
    assert len(list(model.parameters())) == 680 and len(model.net.state_dict()) == 683


@torch.no_grad()
def test_published_weight_layouts_are_loaded_and_exported():
    model = published()
    answer = model(*make_inputs(8, 12))
    assert answer.sample.shape == (2, 6, 8, 12) and answer.heads["prior_stats"].shape == (2, 3)
    assert to_reference_keys(model).keys() == model.net.state_dict().keys()
    with pytest.raises(ConfigError):
        to_reference_keys(denoiser())


@torch.no_grad()
@pytest.mark.parametrize("with_config", [True, False])
def test_published_weights_come_from_a_file_with_or_without_its_config(tmp_path, with_config):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    source = published()
    for parameter in source.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    save_file(to_reference_keys(source), tmp_path / "step_1.safetensors")
    if with_config:
        (tmp_path / "config.json").write_text(json.dumps(source.net.config.to_dict()))
    loaded = published(weights=str(tmp_path / "step_1.safetensors")).eval()
    inputs = make_inputs(8, 12)
    assert torch.equal(loaded(*inputs).sample, source(*inputs).sample)


def test_a_truncated_config_json_is_named(tmp_path):
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


def test_four_statistics_are_refused_by_the_published_network():
    with pytest.raises(SpecMismatch, match="3 of Sol's statistics"):
        published(num_sol_stats=4)


@torch.no_grad()
@pytest.mark.parametrize("size", [4, 16])
def test_maps_of_sol_may_have_any_size(size):
    network, (x, t, cond) = denoiser(sol_size=size), make_inputs()
    ports = {
        "prior_stats": torch.rand(2, 4),
        "prior_map": torch.rand(2, size**2).softmax(-1).view(2, size, size),
    }
    output = network(x, t, Conditioning(cond.text, ports))
    assert output.heads["prior_map"].shape == (2, size, size)


@pytest.mark.parametrize(
    ("sizes", "key"), [({"lune_dim": 20}, "teacher.width"), ({"sol_size": 4}, "experts.sol.size")]
)
def test_experts_of_sizes_that_published_weights_do_not_read_are_refused(tmp_path, sizes, key):
    config = published().net.config.to_dict()
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "step_1.safetensors").touch()
    with pytest.raises(SpecMismatch, match="the expert has") as caught:
        published(weights=str(tmp_path / "step_1.safetensors"), **sizes)
    assert caught.value.where == key
