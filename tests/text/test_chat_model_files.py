"""Encoders of FLUX.2 and FLUX.3 in single files of image tools equal those of the folder."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import releases_flux2 as releases
from tests.text.test_language_model import encoder
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, HubError
from tinyflux_pl.core.files import read_object
from tinyflux_pl.text.registry import build_text

PROMPTS = ["a red circle", "blue square left of the red circle"]
MAKERS = {"qwen3": releases.qwen3, "mistral": releases.mistral3, "qwen3_vl": releases.qwen3_vl}
UNREAD = re.compile(r"vision_tower|visual|multi_modal_projector|lm_head")


@pytest.fixture(scope="module", params=MAKERS)
def release(request, tmp_path_factory):
    """The choice of text, its folder, and its text tensors as image tools store them."""
    folder = tmp_path_factory.mktemp(request.param)
    MAKERS[request.param](folder)
    tensors = load_file(folder / "text_encoder" / "model.safetensors")
    text = {key: value for key, value in tensors.items() if not UNREAD.search(key)}
    bare = {
        re.sub(r"^(model\.language_model\.|language_model\.model\.|model\.)", "", k): v
        for k, v in text.items()
    }
    return request.param, folder, {f"model.{key}": value for key, value in bare.items()}


def file_of(release, to, tensors, layers=(1, 2, 3), **changed):
    choice, folder, _ = release
    save_file({key: value.contiguous() for key, value in tensors.items()}, to)
    structure = read_object(folder / "text_encoder" / "config.json")
    words = {
        "tokenizer": str(folder),
        "structure": structure,
        "revision": None,
        "layers": list(layers),
    }
    return encoder(choice, to, **{**words, **changed})


def reference(release, layers=(1, 2, 3)):
    return encoder(release[0], release[1], layers=list(layers), revision=None)


def same(actual, expected):
    for one, other in zip(
        actual.encode(PROMPTS).tokens, expected.encode(PROMPTS).tokens, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["", "text_encoders.some_4b.transformer.", "_orig_mod."])
def test_a_text_only_file_equals_the_folder(release, tmp_path, prefix):
    more = {
        "tekken_model": torch.ones(9, dtype=torch.uint8),
        "model.diffusion_model.x": torch.ones(1),
    }
    tensors = {f"{prefix}{key}": value for key, value in release[2].items()} | (
        more if "." in prefix[:-1] else {}
    )
    loaded = file_of(release, tmp_path / "f.safetensors", tensors, layers=(1, 2, 4))
    same(loaded, reference(release, (1, 2, 4)))
    assert loaded.text_spec == reference(release, (1, 2, 4)).text_spec
    again = build_text(loaded.name, loaded.config())
    assert again.fingerprint() == loaded.fingerprint()
    assert loaded.fingerprint()["config"] == reference(release).fingerprint()["config"]


@pytest.mark.parametrize("norm", [True, False])
def test_unread_layers_may_be_missing_from_a_file(release, tmp_path, norm):
    left = {
        k: v
        for k, v in release[2].items()
        if ".layers.3." not in k and (norm or k != "model.norm.weight")
    }
    same(file_of(release, tmp_path / "f.safetensors", left), reference(release))
    loaded = file_of(release, tmp_path / "g.safetensors", left, layers=(1, 2, 4))
    with pytest.raises(CheckpointMismatch, match="layer 4 is read and the file has 3"):
        _ = loaded.text_spec


def test_scaled_float8_weights_of_files_and_folders_are_dequantized(release, tmp_path):
    packed, meant = {}, {}
    for key, value in release[2].items():
        if value.ndim == 2 and ".layers." in key:
            scale = value.abs().max() / 448
            packed[key] = (value / scale).to(torch.float8_e4m3fn)
            packed[key.replace(".weight", ".weight_scale")] = scale
            meant[key] = packed[key].float() * scale
        else:
            packed[key] = meant[key] = value
    one, other = (
        file_of(release, tmp_path / f"{n}.safetensors", t) for n, t in (("a", packed), ("b", meant))
    )
    same(one, other)
    torch.testing.assert_close(
        one.encode(PROMPTS[:1]).tokens,
        reference(release).encode(PROMPTS[:1]).tokens,
        rtol=1,
        atol=1,
    )


def test_missing_and_unexpected_keys_are_named(release, tmp_path):
    lost = "model.layers.1.mlp.up_proj.weight"
    lacking = {key: value for key, value in release[2].items() if key != lost}
    with pytest.raises(CheckpointMismatch, match=r"1 missing: layers\.1\.mlp\.up_proj\.weight"):
        _ = file_of(release, tmp_path / "a.safetensors", lacking).text_spec
    more = {**release[2], "model.layers.1.mlp.novel.weight": torch.ones(1)}
    with pytest.raises(CheckpointMismatch, match=r"1 unexpected: layers\.1\.mlp\.novel\.weight"):
        _ = file_of(release, tmp_path / "b.safetensors", more).text_spec
    with pytest.raises(ConfigError, match="holds no language_model"):
        _ = file_of(
            release, tmp_path / "c.safetensors", {"shared.weight": torch.ones(2, 2)}
        ).text_spec
    with pytest.raises(HubError, match=r"no tokenizer[\s\S]*text\.tokenizer=FOLDER"):
        _ = file_of(release, tmp_path / "d.safetensors", release[2], tokenizer=None).text_spec
