"""Weights of a release, from every place they may lie, strictly."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import releases_flux1
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint, HubError
from tinyflux_pl.denoisers.flux1 import Flux1Denoiser

RELEASED = Flux1Denoiser.released
STRUCTURE = releases_flux1.STRUCTURE
STEM = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def net():
    return releases_flux1.transformer()


@pytest.fixture
def folder(tmp_path, net):
    net.save_pretrained(tmp_path / "transformer")
    return tmp_path


def same(loaded, net, dtype=torch.float32):
    state, expected_state = loaded.state_dict(), net.state_dict()
    return state.keys() == expected_state.keys() and all(
        torch.equal(state[key], expected_state[key].to(dtype)) for key in state
    )


def load(weights, structure=None, **options):
    return RELEASED.load(structure or {}, weights=str(weights), **{"dtype": "float32", **options})


def test_weights_load_from_pipeline_folder_component_folder_and_file(folder, net):
    for source in (folder, folder / "transformer", folder / "transformer" / f"{STEM}.safetensors"):
        model = load(source)
        assert (
            same(model, net) and model.training and all(p.requires_grad for p in model.parameters())
        )


def test_shards_are_loaded_through_their_index(tmp_path, net):
    net.save_pretrained(tmp_path / "transformer", max_shard_size="40KB")
    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) > 2
    assert same(load(tmp_path), net)
    next((tmp_path / "transformer").glob("*-00002-of-*")).unlink()
    with pytest.raises(CorruptCheckpoint, match="00002"):
        load(tmp_path)


def test_a_file_without_config_json_uses_the_configured_structure(folder, net, tmp_path):
    alone = tmp_path / "alone" / "net.safetensors"
    alone.parent.mkdir()
    (folder / "transformer" / f"{STEM}.safetensors").rename(alone)
    assert same(load(alone, STRUCTURE), net) and same(load(alone.parent, STRUCTURE), net)
    with pytest.raises(CheckpointMismatch, match=r"missing: transformer_blocks\.2"):
        load(alone, {**STRUCTURE, "num_layers": 3})


def test_weights_have_the_requested_dtype_and_are_not_copied_needlessly(folder, net, monkeypatch):
    assert same(load(folder, dtype="bfloat16"), net, torch.bfloat16)
    read = files.read_tensors
    seen = []
    monkeypatch.setattr(files, "read_tensors", lambda path: seen.append(read(path)) or seen[-1])
    model = load(folder).state_dict()
    assert {key: model[key].data_ptr() for key in model} == {
        key: value.data_ptr() for key, value in seen[0].items()
    }


def test_modules_that_diffusers_keeps_in_fp32_stay_in_fp32(folder, monkeypatch):
    from diffusers import FluxTransformer2DModel

    monkeypatch.setattr(FluxTransformer2DModel, "_keep_in_fp32_modules", ["norm_q"])
    loaded = load(folder, dtype="bfloat16")
    drawn = RELEASED.load(STRUCTURE, random_weights=True)
    with torch.device("meta"):
        planned = load(folder, dtype="bfloat16")
    for model in (loaded, drawn, planned):
        types = {name: p.dtype for name, p in model.named_parameters()}
        assert {types[name] for name in types if ".norm_q." in name} == {torch.float32}
        assert {types[name] for name in types if ".norm_q." not in name} == {torch.bfloat16}


@pytest.mark.parametrize("change", ["missing", "unexpected", "of another shape"])
def test_mismatched_keys_and_shapes_are_named(folder, change):
    file = folder / "transformer" / f"{STEM}.safetensors"
    tensors = load_file(file)
    bias = tensors.pop("proj_out.bias")
    if change != "missing":
        tensors["proj_out.bias"] = bias
    if change == "unexpected":
        tensors["extra.weight"] = bias.clone()
    if change == "of another shape":
        tensors["proj_out.bias"] = bias[1:]
    save_file(tensors, file)
    name = "extra.weight" if change == "unexpected" else "proj_out.bias"
    with pytest.raises(CheckpointMismatch, match=rf"1 {change}: {name}"):
        load(folder)


def test_an_original_file_that_lacks_or_adds_a_key_is_named(tmp_path, net):
    from tests.weights.flux1_original import to_original

    tensors = to_original(net.state_dict())
    lacking = {k: v for k, v in tensors.items() if k != "double_blocks.1.img_mlp.0.bias"}
    save_file(lacking, tmp_path / "a.safetensors")
    with pytest.raises(
        CheckpointMismatch, match=r"1 missing: transformer_blocks\.1\.ff\.net\.0\.proj\.bias"
    ):
        load(tmp_path / "a.safetensors", STRUCTURE)
    save_file({**tensors, "double_blocks.1.lora.weight": torch.ones(1)}, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointMismatch, match=r"1 unexpected: double_blocks\.1\.lora\.weight"):
        load(tmp_path / "b.safetensors", STRUCTURE)


def test_a_truncated_file_and_an_empty_folder_are_refused(folder):
    file = folder / "transformer" / f"{STEM}.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(CorruptCheckpoint):
        load(folder)
    file.unlink()
    with pytest.raises(HubError, match="no safetensors"):
        load(folder)


def test_random_weights_must_be_requested_explicitly():
    with pytest.raises(ConfigError, match="no weights"):
        RELEASED.load(STRUCTURE, weights=None)
    model = RELEASED.load(STRUCTURE, weights=None, random_weights=True, dtype="float32")
    assert float(model.x_embedder.weight.detach().std()) > 0


def test_a_skeleton_lies_on_the_meta_device_and_reads_no_weights(folder):
    (folder / "transformer" / f"{STEM}.safetensors").write_bytes(b"")
    with torch.device("meta"):
        model = load(folder, dtype="bfloat16")
    assert {(p.is_meta, p.dtype) for p in model.parameters()} == {(True, torch.bfloat16)}
    assert model.config["num_layers"] == STRUCTURE["num_layers"]


def test_unknown_structure_keys_are_refused_and_those_of_config_json_reported_once(folder, capsys):
    with pytest.raises(ConfigError, match=r"no 'num_layer'[\s\S]*did you mean 'num_layers'"):
        RELEASED.skeleton({**STRUCTURE, "num_layer": 1})
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "of_tomorrow": 1}))
    load(folder)
    load(folder)  # named once
    assert capsys.readouterr().out.count("of_tomorrow") == 1


def test_half_precision_is_refused_with_a_cure(folder):
    with pytest.raises(ConfigError, match=r"overflows[\s\S]*model\.dtype=bfloat16"):
        load(folder, dtype="float16")
    with pytest.raises(ConfigError, match="float8"):
        load(folder, dtype="float8")


def changed(folder, change):
    """The network's file with its tensors changed."""
    file = folder / "transformer" / f"{STEM}.safetensors"
    save_file(change(load_file(file)), file)
    return folder


def test_a_file_of_mixed_dtypes_is_loaded_in_the_requested_one(folder):
    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float64)

    def mixed(tensors):
        return {
            key: value.to(kinds[i % len(kinds)]) for i, (key, value) in enumerate(tensors.items())
        }

    read = load_file(changed(folder, mixed) / "transformer" / f"{STEM}.safetensors")
    for dtype in (torch.bfloat16, torch.float32):
        model = load(folder, dtype=str(dtype).removeprefix("torch."))
        assert {p.dtype for p in model.parameters()} == {dtype} and model.dtype == dtype
        assert all(
            torch.equal(value, read[key].to(dtype)) for key, value in model.state_dict().items()
        )


def test_scaled_float8_weights_are_dequantized(folder, net):
    key = "transformer_blocks.1.ff.net.2.weight"
    scale = net.state_dict()[key].abs().max() / 448

    def scaled(tensors):
        packed = (tensors[key] / scale).to(torch.float8_e4m3fn)
        return {**tensors, key: packed, key.replace(".weight", ".weight_scale"): scale}

    loaded = load(changed(folder, scaled)).state_dict()[key]
    torch.testing.assert_close(loaded, net.state_dict()[key], rtol=0.07, atol=float(scale))
    assert float(loaded.abs().max()) < 2 * float(net.state_dict()[key].abs().max())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda t: {**t, "optimizer.state.0.exp_avg": torch.ones(1)},
            r"1 unexpected: optimizer\.state\.0\.exp_avg",
        ),
        (
            lambda t: {f"x.{i}.lora_A.weight": torch.ones(1) for i in range(9)},
            "9 of 9 tensors belong to a LoRA",
        ),
        (lambda t: {**t, "proj_out.weight.absmax": torch.ones(1)}, "packed by bitsandbytes"),
        (
            lambda t: {k: v.to(torch.int8) if k == "proj_out.weight" else v for k, v in t.items()},
            "packed as torch.int8",
        ),
    ],
)
def test_weights_that_are_no_plain_floating_point_network_are_refused_by_kind(folder, make, says):
    with pytest.raises(CheckpointMismatch, match=says):
        load(changed(folder, make))


def test_a_variant_behind_links_into_a_cache_is_loaded(folder, net, tmp_path):
    file = folder / "transformer" / f"{STEM}.safetensors"
    blob = tmp_path / "blobs" / "0a1b"
    blob.parent.mkdir()
    file.rename(blob)
    (folder / "transformer" / f"{STEM}.fp16.safetensors").symlink_to(blob)
    for source in (
        folder,
        folder / "transformer",
        folder / "transformer" / f"{STEM}.fp16.safetensors",
    ):
        assert same(load(source), net)
