"""The real encoders' loading code, on tiny random checkpoints in the layout of the releases."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel, CLIPTextModel, T5ForConditionalGeneration

from tests import releases
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint, HubError
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.text.clip import ClipText
from tinyflux_pl.text.clip_t5 import ClipT5
from tinyflux_pl.text.registry import build_text

PROMPTS = ["a red circle", "blue square left of the red circle", ""]


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return releases.flan_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return releases.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return releases.sd15_text(tmp_path_factory.mktemp("sd15"))


@pytest.fixture
def both(t5, clip):
    return ClipT5(str(t5), str(clip), length=12)


def test_tokens_come_from_t5_and_pooled_text_from_clip(both, t5, clip):
    embeddings = both.encode(PROMPTS)
    assert both.text_spec == TextSpec(width=16, length=12, pooled=12)
    assert embeddings.tokens.shape == (3, 12, 16) and embeddings.pooled.shape == (3, 12)
    assert embeddings.mask.sum(1).tolist() == [4, 8, 1]  # words and the end
    reference = T5ForConditionalGeneration.from_pretrained(t5).eval().encoder
    ids = AutoTokenizer.from_pretrained(t5)([PROMPTS[1]], return_tensors="pt")["input_ids"]
    torch.testing.assert_close(
        embeddings.tokens[1, :8],
        reference(input_ids=ids).last_hidden_state[0],
        atol=1e-5,
        rtol=1e-5,
    )
    read = AutoTokenizer.from_pretrained(clip)([PROMPTS[1]], return_tensors="pt")["input_ids"]
    hidden = CLIPModel.from_pretrained(clip).eval().text_model(input_ids=read).last_hidden_state
    # at the end token
    torch.testing.assert_close(embeddings.pooled[1], hidden[0, -1], atol=1e-5, rtol=1e-5)


def test_embeddings_do_not_depend_on_the_batch(both):
    joint, alone = both.encode(PROMPTS), both.encode(PROMPTS[:1])
    torch.testing.assert_close(joint.tokens[0, :4], alone.tokens[0, :4], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(joint.pooled[0], alone.pooled[0], atol=1e-6, rtol=1e-5)
    both.batch_size = 1
    torch.testing.assert_close(both.encode(PROMPTS).tokens, joint.tokens, atol=1e-5, rtol=1e-5)


def test_the_null_text_is_the_empty_prompt(both):
    torch.testing.assert_close(
        both.null().tokens[0], both.encode(PROMPTS).tokens[2], atol=1e-6, rtol=1e-5
    )


def test_sequential_loading_holds_one_encoder_and_gives_equal_embeddings(
    both, t5, clip, monkeypatch
):
    import tinyflux_pl.text.pretrained as pretrained

    one = ClipT5(str(t5), str(clip), length=12, sequential=True)
    counts = []
    load = pretrained.load_encoder
    monkeypatch.setattr(
        pretrained, "load_encoder", lambda *a: (counts.append(len(one._models)), load(*a))[1]
    )
    torch.testing.assert_close(
        one.encode(PROMPTS).pooled, both.encode(PROMPTS).pooled, atol=1e-6, rtol=1e-5
    )
    assert counts[:2] == [0, 0] and not one._models


def test_t5_in_fp16_is_refused(t5, clip):
    with pytest.raises(ConfigError, match="overflows"):
        ClipT5(str(t5), str(clip), dtype="float16")
    half = ClipT5(str(t5), str(clip), length=12, dtype="bfloat16").encode(PROMPTS)
    assert half.tokens.dtype == torch.float32 and half.tokens.isfinite().all()


def test_a_long_prompt_is_truncated_with_a_warning(t5, clip):
    with pytest.warns(UserWarning, match="8 tokens is cut at 4"):
        embeddings = ClipT5(str(t5), str(clip), length=4).encode([PROMPTS[1]])
    assert embeddings.tokens.shape[1] == 4


def test_stable_diffusions_clip_gives_all_77_states_unmasked(pipeline):
    text = ClipText(str(pipeline))
    embeddings = text.encode(PROMPTS)
    assert (
        text.text_spec == TextSpec(12, 77, 12)
        and embeddings.tokens.shape == (3, 77, 12)
        and embeddings.mask.all()
    )
    read = AutoTokenizer.from_pretrained(pipeline / "tokenizer")(
        PROMPTS, padding="max_length", max_length=77
    )
    model = CLIPTextModel.from_pretrained(pipeline / "text_encoder").eval()
    expected = model(input_ids=torch.tensor(read["input_ids"])).last_hidden_state
    torch.testing.assert_close(embeddings.tokens, expected, atol=1e-5, rtol=1e-5)


def test_encoders_are_rebuilt_from_name_and_config(both, pipeline):
    for text in (both, ClipText(str(pipeline))):
        again = build_text(text.name, text.config())
        assert again.fingerprint() == text.fingerprint()
        torch.testing.assert_close(again.null().tokens, text.null().tokens, rtol=0, atol=0)


def test_the_fingerprint_depends_on_weights_and_vocabulary(pipeline, tmp_path):
    before = ClipText(str(pipeline)).fingerprint()
    copy = shutil.copytree(pipeline, tmp_path / "copy")
    assert ClipText(str(copy)).fingerprint() == before
    path = copy / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text().replace('"red"', '"tomato"'))
    assert ClipText(str(copy)).fingerprint() != before
    file = copy / "text_encoder" / "model.safetensors"
    save_file({k: v + 1 for k, v in load_file(file).items()}, file, {"format": "pt"})
    assert (
        ClipText(str(copy)).fingerprint()["files"]["model.safetensors"]
        != before["files"]["model.safetensors"]
    )


def test_missing_weights_and_pickles_are_refused(pipeline, tmp_path):
    copy = shutil.copytree(pipeline, tmp_path / "copy")
    file = copy / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    gone = next(key for key in tensors if key.endswith("final_layer_norm.weight"))
    save_file({k: v for k, v in tensors.items() if k != gone}, file, {"format": "pt"})
    with pytest.raises(CheckpointMismatch, match="final_layer_norm"):
        ClipText(str(copy)).encode(["a"])
    file.unlink()
    torch.save(tensors, copy / "text_encoder" / "pytorch_model.bin")
    with pytest.raises(HubError, match="safetensors"):
        ClipText(str(copy)).encode(["a"])
    assert json.loads((copy / "text_encoder" / "config.json").read_text())["hidden_size"] == 12
    with pytest.raises(HubError, match="no folder"):
        ClipText(str(pipeline), subfolder="text_encoder_2").encode(["a"])


def test_misshapen_weights_and_truncated_files_are_named(t5, clip, tmp_path):
    copy = shutil.copytree(t5, tmp_path / "copy")
    file = copy / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "shared.weight": torch.zeros(3, 4)}, file, {"format": "pt"})
    with pytest.raises(
        CheckpointMismatch, match=r"of another shape: .*shared\.weight \(3, 4\) for \(\d+, 16\)"
    ):
        ClipT5(str(copy), str(clip), length=8).encode(["a"])
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(CorruptCheckpoint, match="not a complete safetensors file"):
        ClipT5(str(copy), str(clip), length=8).encode(["a"])
    (copy / "config.json").write_text("{")
    with pytest.raises(CorruptCheckpoint, match="not JSON"):
        _ = ClipT5(str(copy), str(clip)).text_spec


def test_another_kind_of_encoder_or_a_missing_tokenizer_is_refused(t5, clip, tmp_path):
    with pytest.raises(CheckpointMismatch, match="not T5"):
        _ = ClipT5(str(clip), str(clip)).text_spec
    copy = shutil.copytree(t5, tmp_path / "copy")
    for file in copy.glob("*token*"):
        file.unlink()
    with pytest.raises(HubError, match="no tokenizer"):
        ClipT5(str(copy), str(clip), length=8).encode(["a"])


def test_loading_an_encoder_prints_nothing(t5, clip, capfd):
    ClipT5(str(t5), str(clip), length=8).encode(["a"])
    assert capfd.readouterr() == ("", "")


def test_a_lone_variant_is_read_and_unsuffixed_weights_take_precedence(pipeline, tmp_path):
    copy = shutil.copytree(pipeline, tmp_path / "copy")
    folder = copy / "text_encoder"
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = ("model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors")
    halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
    for name, half in zip(names, halves, strict=True):
        save_file({k: v.half() for k, v in half.items()}, folder / name, {"format": "pt"})
    weight_map = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    (folder / "model.safetensors.index.fp16.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    reference, lone = ClipText(str(pipeline)).encode(PROMPTS), ClipText(str(copy))
    assert set(names) < lone.fingerprint()["files"].keys()
    torch.testing.assert_close(lone.encode(PROMPTS).tokens, reference.tokens, rtol=1e-2, atol=1e-2)
    assert not torch.equal(lone.encode(PROMPTS).tokens, reference.tokens)
    shutil.copy(pipeline / "text_encoder" / "model.safetensors", folder)
    assert torch.equal(ClipText(str(copy)).encode(PROMPTS).tokens, reference.tokens)


def test_an_encoder_with_packed_weights_is_refused_by_name(pipeline, tmp_path):
    copy = shutil.copytree(pipeline, tmp_path / "copy")
    config = copy / "text_encoder" / "config.json"
    packed = {"quant_method": "gptq", "load_in_4bit": True}
    config.write_text(json.dumps({**json.loads(config.read_text()), "quantization_config": packed}))
    with pytest.raises(CheckpointMismatch, match="packed by gptq"):
        _ = ClipText(str(copy)).text_spec


def test_attend_padding_unmasks_padding_for_the_network_and_masks_it_in_t5(t5, clip):
    usual = ClipT5(str(t5), str(clip), length=12).encode(PROMPTS)
    encoder = ClipT5(str(t5), str(clip), length=12, attend_padding=True)
    embeddings = encoder.encode(PROMPTS)
    assert embeddings.mask.all() and not usual.mask.all()
    assert torch.equal(embeddings.tokens, usual.tokens) and torch.equal(
        embeddings.pooled, usual.pooled
    )
    assert embeddings.trimmed().tokens.shape[1] == 12 and bool(embeddings.tokens[~usual.mask].any())
    assert encoder.fingerprint() != ClipT5(str(t5), str(clip), length=12).fingerprint()
    assert build_text(encoder.name, encoder.config()).attend_padding


@pytest.mark.parametrize("settings", [{}, {"attend_padding": True}, {"masked": False}])
def test_masks_are_those_of_the_embeddings_without_reading_weights(t5, clip, settings, monkeypatch):
    prompts = ["a red circle", "", "the blue square left of the red circle"]
    expected = ClipT5(str(t5), str(clip), length=12, **settings).encode(prompts).mask
    encoder = ClipT5(str(t5), str(clip), length=12, **settings)
    monkeypatch.setattr(ClipT5, "_loaded", None)
    assert torch.equal(encoder.masks(prompts), expected)
