"""Text encoders of single files equal those of diffusers' conversion of the same weights."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import releases_stability
from tests.original_layouts import sd35_file, sdxl_file
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, HubError
from tinyflux_pl.text import encoder_file
from tinyflux_pl.text.clip_pair import ClipPairText

PROMPTS = ["a red circle", "blue square left of the red circle"]
SD3 = dict(pooled="both", zero_null=False, t5_length=16)


def structure(folder, name):
    """The config.json of a folder, as a configuration would state it."""
    unsaid = ("architectures", "dtype", "transformers_version", "model_type")
    return {
        k: v
        for k, v in json.loads((folder / name / "config.json").read_text()).items()
        if k not in unsaid
    }


def structures(folder, **names):
    return {key: structure(folder, name) for key, name in names.items()}


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdxl")
    pipeline = releases_stability.sdxl(folder)
    alone = tmp_path_factory.mktemp("alone")
    save_file(sdxl_file(pipeline), alone / "sd_xl_base_1.0.safetensors")
    return folder, pipeline, alone / "sd_xl_base_1.0.safetensors"


def projecting_square(config):
    return type(config)(**{**config.to_dict(), "projection_dim": config.hidden_size})


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd35")
    pipeline = releases_stability.sd35(folder)
    first = type(pipeline.text_encoder)(projecting_square(pipeline.text_encoder.config)).eval()
    with torch.no_grad():  # the release's first encoder has the identity for a projection
        first.text_projection.weight.copy_(torch.eye(12))
    first.save_pretrained(folder / "text_encoder")
    pipeline.text_encoder = first
    alone = tmp_path_factory.mktemp("alone")
    save_file(sd35_file(pipeline), alone / "sd3.5_large.safetensors")
    return folder, pipeline, alone / "sd3.5_large.safetensors"


def xl_text(folder, file, **changes):
    options = structures(folder, first="text_encoder", second="text_encoder_2")
    return ClipPairText(str(file), **{"tokenizer": str(folder), "structures": options, **changes})


def three_text(folder, file, **changes):
    options = structures(folder, first="text_encoder", second="text_encoder_2", t5="text_encoder_3")
    return ClipPairText(
        str(file), **{"tokenizer": str(folder), "structures": options, **SD3, **changes}
    )


def read(file, part, skeleton):
    prefix = encoder_file.prefix_of(file, part)
    return encoder_file.encoder_weights(
        load_file(file), part, skeleton, torch.float32, "f", prefix=prefix, alone=True
    )


def same(actual, published):
    for one, other in ((actual.tokens, published.tokens), (actual.pooled, published.pooled)):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_sdxl_encoders_of_a_file_equal_those_of_the_folder(xl):
    folder, _, file = xl
    loaded, reference = xl_text(folder, file), ClipPairText(str(folder))
    assert loaded.text_spec == reference.text_spec
    same(loaded.encode(PROMPTS), reference.encode(PROMPTS))
    assert [
        loaded.fingerprint()[key] != reference.fingerprint()[key] for key in ("first", "second")
    ] == [
        True,
        True,
    ]
    assert {k: v.num_parameters() for k, v in loaded.skeletons().items()} == {
        k: v.num_parameters() for k, v in reference.skeletons().items()
    }


def test_sd35_encoders_of_a_file_equal_those_of_the_folder(three):
    folder, _, file = three
    loaded, reference = three_text(folder, file), ClipPairText(str(folder), **SD3)
    assert loaded.text_spec == reference.text_spec
    same(loaded.encode(PROMPTS), reference.encode(PROMPTS))


@pytest.mark.parametrize(
    ("part", "subfolder"), [("clip_l", "text_encoder"), ("clip_g", "text_encoder_2")]
)
@pytest.mark.parametrize("release", ["xl", "three"])
def test_clip_encoders_equal_those_that_diffusers_loads_from_the_file(
    release, part, subfolder, request
):
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

    folder, pipeline, file = request.getfixturevalue(release)
    original = getattr(pipeline, subfolder)
    # theirs tells the two CLIPs by width
    tensors = sdxl_file(pipeline) if release == "xl" else sd35_file(pipeline)
    checkpoint = {
        k: v
        for k, v in tensors.items()
        if k.startswith(tuple(filter(None, encoder_file.PARTS[part])))
    }
    published = create_diffusers_clip_model_from_ldm(
        type(original),
        checkpoint,
        subfolder=subfolder,
        config=str(folder),
        torch_dtype=torch.float32,
    ).state_dict()
    actual = read(file, part, original)
    assert actual.keys() == published.keys() and all(
        torch.equal(actual[key], published[key]) for key in actual
    )


def test_t5_equals_the_one_that_diffusers_loads_from_the_file(three):
    from diffusers.loaders.single_file_utils import convert_sd3_t5_checkpoint_to_diffusers

    _, pipeline, file = three
    published = convert_sd3_t5_checkpoint_to_diffusers(sd35_file(pipeline))
    actual = read(file, "t5xxl", pipeline.text_encoder_3)
    assert actual.keys() == published.keys() and all(
        torch.equal(actual[key], published[key]) for key in actual
    )


def test_missing_encoders_are_taken_from_the_release_folder(xl, tmp_path):
    folder, _, file = xl
    around = shutil.copytree(folder, tmp_path / "stable-diffusion-xl-base-1.0")
    shutil.copy(file, around)
    shutil.rmtree(around / "text_encoder")  # which the file holds
    expected = ClipPairText(str(folder)).encode(PROMPTS)
    same(xl_text(folder, around / file.name, tokenizer=None).encode(PROMPTS), expected)
    save_file({"model.diffusion_model.x": torch.ones(1)}, around / "unet_only.safetensors")
    shutil.copytree(folder / "text_encoder", around / "text_encoder")
    same(
        xl_text(folder, around / "unet_only.safetensors", tokenizer=None).encode(PROMPTS), expected
    )


def test_tokenizers_are_read_from_a_separate_folder_that_is_required(xl, tmp_path):
    folder, _, file = xl
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(folder / name, tmp_path / "words" / name)
    loaded = xl_text(folder, file, tokenizer=str(tmp_path / "words"))
    same(loaded.encode(PROMPTS), ClipPairText(str(folder)).encode(PROMPTS))
    shutil.rmtree(tmp_path / "words" / "tokenizer_2")
    says = r"no tokenizer[\s\S]*text\.tokenizer=FOLDER"
    for tokenizer in (None, str(tmp_path / "words")):
        with pytest.raises(HubError, match=says):
            _ = xl_text(folder, file, tokenizer=tokenizer).text_spec  # before anything is read


def test_missing_and_unexpected_keys_are_named(xl, tmp_path):
    folder, pipeline, _ = xl
    tensors = sdxl_file(pipeline)
    lost = "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_bias"
    save_file({k: v for k, v in tensors.items() if k != lost}, tmp_path / "a.safetensors")
    says = r"3 missing: .*layers\.1\.self_attn\.k_proj\.bias.*q_proj\.bias.*v_proj\.bias"
    with pytest.raises(CheckpointMismatch, match=says):
        xl_text(folder, tmp_path / "a.safetensors").encode(PROMPTS)
    stray = "conditioner.embedders.0.transformer.text_model.encoder.layers.7.mlp.fc1.bias"
    save_file({**tensors, stray: torch.ones(24)}, tmp_path / "b.safetensors")
    with pytest.raises(
        CheckpointMismatch, match=r"1 unexpected: text_model\.encoder\.layers\.7\.mlp\.fc1\.bias"
    ):
        xl_text(folder, tmp_path / "b.safetensors").encode(PROMPTS)
    options = structures(folder, first="text_encoder", second="text_encoder_2")
    options["first"]["intermediate_size"] = 25
    with pytest.raises(
        CheckpointMismatch,
        match=r"of another shape: encoder\.layers\.0\.mlp\.fc1\.bias \(24,\) for \(25,\)",
    ):
        xl_text(folder, tmp_path / "b.safetensors", structures=options).encode(PROMPTS)


def test_the_error_for_a_file_without_encoders_names_their_source(xl, three, tmp_path):
    folder, pipeline, _ = three
    save_file(sd35_file(pipeline, t5=False), tmp_path / "incl_clips.safetensors")
    with pytest.raises(ConfigError, match=r"holds no t5xxl[\s\S]*release\.weights"):
        _ = three_text(folder, tmp_path / "incl_clips.safetensors").text_spec
    without = three_text(folder, tmp_path / "incl_clips.safetensors", drop_t5=True)
    assert not without.encode(PROMPTS).tokens[:, 77:].any()
    with pytest.raises(ConfigError, match=r"text\.structures"):
        _ = xl_text(xl[0], xl[2], structures=None).text_spec


def test_the_encoder_is_rebuilt_from_its_config(xl):
    from tinyflux_pl.text.registry import build_text

    loaded = xl_text(xl[0], xl[2])
    again = build_text(loaded.name, loaded.config())
    assert again.fingerprint() == loaded.fingerprint()
    same(again.encode(PROMPTS), loaded.encode(PROMPTS))
