"""Encoder folders are checked like single files: packed weights, keys, tokenizers, configs."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import releases
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint
from tinyflux_pl.text.clip import ClipText
from tinyflux_pl.text.clip_t5 import ClipT5

PROMPTS = ["a red circle", "blue square"]
MARKER = {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
LAYER = "text_model.encoder.layers.0.mlp.fc1"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return releases.sd15_text(tmp_path_factory.mktemp("sd15"))


def changed(folder, to, change):
    """A copy of a folder whose text encoder's tensors are changed."""
    file = shutil.copytree(folder, to) / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    if not any(key.startswith("text_model.") for key in tensors):
        tensors = {f"text_model.{key}": value for key, value in tensors.items()}
    save_file(
        {key: value.contiguous() for key, value in change(tensors).items()}, file, {"format": "pt"}
    )
    return to


def packed(name, dtype, most, rows):
    """Matrices of the layers with a scale each, as tools write them, and what they mean."""

    def pack(tensors, meant):
        result = dict(tensors) if meant else {**tensors, **(MARKER if dtype != torch.int8 else {})}
        for key, value in tensors.items():
            if value.ndim == 2 and ".layers." in key:
                scale = (
                    value.abs().amax(1, keepdim=True) / most if rows else value.abs().max() / most
                )
                number = (value / scale).round() if dtype == torch.int8 else value / scale
                result[key] = number.to(dtype).float() * scale if meant else number.to(dtype)
                result |= {} if meant else {key.replace(".weight", f".{name}"): scale}
        return result

    return pack


@pytest.mark.parametrize("name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float8_e4m3fn, 448), (torch.float8_e5m2, 57344), (torch.int8, 127)]
)
@pytest.mark.parametrize("rows", [False, True])
def test_scaled_weights_in_a_folder_are_dequantized(pipeline, tmp_path, name, dtype, most, rows):
    pack = packed(name, dtype, most, rows)
    one = ClipText(str(changed(pipeline, tmp_path / "one", lambda tensors: pack(tensors, False))))
    other = ClipText(
        str(changed(pipeline, tmp_path / "other", lambda tensors: pack(tensors, True)))
    )
    assert torch.equal(one.encode(PROMPTS).tokens, other.encode(PROMPTS).tokens)
    torch.testing.assert_close(
        one.encode(PROMPTS).tokens,
        ClipText(str(pipeline)).encode(PROMPTS).tokens,
        rtol=0.3,
        atol=0.3,
    )


def without(*ends):
    pack = packed("scale_weight", torch.float8_e4m3fn, 448, False)
    return lambda tensors: {
        key: value for key, value in pack(tensors, False).items() if not key.endswith(ends)
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without(".scale_weight"), "float8 matrices lack their scale"),
        (without("q_proj.scale_weight"), "2 of 12 float8 matrices lack their scale"),
        (without("q_proj.weight"), "a scale without a weight"),
        (lambda tensors: {**tensors, **MARKER}, "announces scales"),
        (
            lambda tensors: {**tensors, f"{LAYER}.weight_scale": torch.ones(3)},
            r"scale of shape \(3,\)",
        ),
        (
            lambda tensors: {
                **tensors,
                f"{LAYER}.weight": tensors[f"{LAYER}.weight"].to(torch.int8),
            },
            "packed as torch.int8",
        ),
        (
            lambda tensors: {**tensors, f"{LAYER}.weight.absmax": torch.ones(1)},
            "packed by bitsandbytes",
        ),
        (
            lambda tensors: {**tensors, f"{LAYER}.extra": torch.ones(1)},
            r"1 unexpected: .*fc1\.extra",
        ),
        (
            lambda tensors: {k: v for k, v in tensors.items() if k != f"{LAYER}.bias"},
            r"1 missing: .*fc1\.bias",
        ),
    ],
)
def test_unusable_folders_are_refused_by_their_headers(pipeline, tmp_path, change, says):
    with pytest.raises(CheckpointMismatch, match=says):
        _ = ClipText(str(changed(pipeline, tmp_path / "odd", change))).text_spec


def test_a_shard_that_is_all_zeros_is_refused(pipeline, tmp_path):
    folder = shutil.copytree(pipeline, tmp_path / "zeros") / "text_encoder"
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    halves = [dict(list(tensors.items())[i::2]) for i in (0, 1)]
    save_file(halves[0], folder / names[0], {"format": "pt"})
    save_file(
        {k: torch.zeros_like(v) for k, v in halves[1].items()}, folder / names[1], {"format": "pt"}
    )
    index = {
        "weight_map": {key: name for name, half in zip(names, halves, strict=True) for key in half}
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CorruptCheckpoint, match=r"hold zeros alone[\s\S]*00002-of-00002"):
        ClipText(str(tmp_path / "zeros")).encode(PROMPTS)


def config(folder, to, **values):
    file = shutil.copytree(folder, to) / "text_encoder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return ClipText(str(to)).fingerprint()


@pytest.mark.parametrize(
    "values",
    [
        {"layer_norm_eps": 1e-3},
        {"hidden_act": "gelu"},
        {"num_attention_heads": 3},
        {"eos_token_id": 2},
    ],
)
def test_config_settings_that_change_embeddings_are_in_the_fingerprint(pipeline, tmp_path, values):
    before = ClipText(str(pipeline)).fingerprint()
    after = config(pipeline, tmp_path / "other", **values)
    assert {key for key in before if before[key] != after[key]} == {"config"}
    assert before["config"].keys() ^ after["config"].keys() <= values.keys()


def test_neutral_settings_are_not_in_the_fingerprint(pipeline, tmp_path):
    notes = {
        "transformers_version": "4.0.0",
        "_name_or_path": "x",
        "attention_dropout": 0.5,
        "torch_dtype": "float16",
    }
    # a default, and what nobody reads
    spelled = {"layer_norm_eps": 1e-5, "initializer_factor": 2.0, "bos_token_id": 7}
    assert (
        config(pipeline, tmp_path / "other", **notes, **spelled)
        == ClipText(str(pipeline)).fingerprint()
    )


def test_configurations_of_t5_and_clip_are_in_the_fingerprint(tmp_path):
    t5, clip = releases.flan_t5(tmp_path / "t5"), releases.clip(tmp_path / "clip")
    before = ClipT5(str(t5), str(clip), length=8).fingerprint()
    file = t5 / "config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "eos_token_id": 0}))  # nobody asks T5 where a text ends
    assert ClipT5(str(t5), str(clip), length=8).fingerprint() == before
    file.write_text(json.dumps({**settings, "layer_norm_epsilon": 1e-3}))
    after = ClipT5(str(t5), str(clip), length=8).fingerprint()
    assert (
        after["config"]["t5"]["layer_norm_epsilon"] == 1e-3
        and after["config"]["clip"] == before["config"]["clip"]
    )


def test_a_config_that_describes_no_encoder_is_refused_in_three_lines(pipeline, tmp_path):
    with pytest.raises(ConfigError, match=r"not the structure of a CLIPTextModel[\s\S]*do:"):
        config(pipeline, tmp_path / "odd", num_hidden_layers="two")


def words(folder, to, change):
    """A copy of a folder whose tokenizer's JSON is changed."""
    file = shutil.copytree(folder, to) / "tokenizer" / "tokenizer.json"
    settings = json.loads(file.read_text())
    change(settings)
    file.write_text(json.dumps(settings))
    return ClipText(str(to))


def test_a_tokenizer_with_ids_beyond_the_embedding_is_refused_before_weights_are_read(
    pipeline, tmp_path
):
    text = words(
        pipeline, tmp_path / "more", lambda settings: settings["model"]["vocab"].update(novel=99)
    )
    with pytest.raises(
        CheckpointMismatch, match=r"ids up to 99, and CLIPTextModel embeddings of \d+ only"
    ):
        _ = text.text_spec
    damaged = words(
        pipeline, tmp_path / "torn", lambda settings: settings.update(model={"vocab": 3})
    )
    with pytest.raises(CorruptCheckpoint, match=r"not a vocabulary[\s\S]*tokenizer\.json"):
        _ = damaged.text_spec


def test_a_tokenizer_of_another_kind_of_encoder_is_refused(pipeline, tmp_path):
    def ends_otherwise(settings):
        settings["post_processor"] = None

    with pytest.raises(CheckpointMismatch, match="of another encoder"):
        words(pipeline, tmp_path / "other", ends_otherwise).encode(PROMPTS)
    t5, clip = releases.flan_t5(tmp_path / "t5"), releases.clip(tmp_path / "clip")
    for file in t5.glob("*token*"):
        file.unlink()
    for file in clip.glob("*token*"):
        shutil.copy(file, t5)
    with pytest.raises(CheckpointMismatch, match=r"T5EncoderModel expects|ids up to"):
        ClipT5(str(t5), str(clip), length=8).encode(PROMPTS)
