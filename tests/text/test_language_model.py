"""Chat models as text encoders equal what diffusers' pipelines make of the same random weights."""

from types import SimpleNamespace

import pytest
import torch
import yaml

from tests import releases_flux2 as releases
from tests.app.runs import CONF
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.text.language_model import LanguageModelText
from tinyflux_pl.text.registry import build_text

PROMPTS = ["a red circle", "blue square left of the red circle", ""]
LENGTH = 24


def encoder(choice: str, folder, **changed) -> LanguageModelText:
    """The encoder of conf/text/<choice>.yaml on a small checkpoint: fewer layers, shorter, fp32."""
    node = yaml.safe_load((CONF / "text" / f"{choice}.yaml").read_text())
    node.pop("_target_")
    small = {
        "variant": None,
        "weights": str(folder),
        "layers": [1, 2, 4],
        "length": LENGTH,
        "dtype": "float32",
    }
    return LanguageModelText(**{**node, **small, **changed})


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("klein")
    return folder, releases.qwen3(folder)


def reloaded(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "tokenizer")


def test_klein_reads_three_layers_of_qwen3(qwen3):
    from diffusers import Flux2KleinPipeline

    folder, model = qwen3
    text = encoder("qwen3", folder)
    embeddings = text.encode(PROMPTS)
    expected = Flux2KleinPipeline._get_qwen3_prompt_embeds(
        model, reloaded(folder), PROMPTS, max_sequence_length=LENGTH, hidden_states_layers=[1, 2, 4]
    )
    torch.testing.assert_close(embeddings.tokens, expected, atol=1e-5, rtol=1e-5)
    assert text.text_spec == TextSpec(
        width=24, length=LENGTH, pooled=0
    ) and embeddings.pooled.shape == (
        3,
        0,
    )
    assert bool(embeddings.mask.all())  # the transformer attends to the padding
    assert not torch.allclose(embeddings.tokens[0], embeddings.tokens[1])


def test_dev_reads_three_layers_of_mistral_under_its_system_message(tmp_path):
    from diffusers import Flux2Pipeline
    from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE

    model = releases.mistral3(tmp_path)
    text = encoder("mistral", tmp_path, length=64)
    assert text.system_message == SYSTEM_MESSAGE
    prompts = [*PROMPTS, "a [IMG] circle"]
    expected = Flux2Pipeline._get_mistral_3_small_prompt_embeds(
        model, reloaded(tmp_path), prompts, max_sequence_length=64, hidden_states_layers=[1, 2, 4]
    )
    torch.testing.assert_close(text.encode(prompts).tokens, expected, atol=1e-5, rtol=1e-5)


def test_flux3_rounds_prompt_lengths_up_and_gives_padding_position_one(tmp_path):
    from diffusers.modular_pipelines.flux3.encoders import Flux3TextEncoderStep

    model = releases.qwen3_vl(tmp_path)
    text = encoder("qwen3_vl", tmp_path, pad_multiple=5)
    tokenizer = reloaded(tmp_path)
    processor = SimpleNamespace(
        tokenizer=tokenizer, apply_chat_template=tokenizer.apply_chat_template
    )
    lengths = set()
    for prompt in PROMPTS:
        expected = Flux3TextEncoderStep._get_qwen3_vl_prompt_embeds(
            model,
            processor,
            prompt,
            max_sequence_length=LENGTH,
            pad_multiple=5,
            hidden_states_layers=(1, 2, 4),
        )
        torch.testing.assert_close(text.encode([prompt]).tokens, expected, atol=1e-5, rtol=1e-5)
        lengths.add(expected.shape[1])
    joint = text.encode(PROMPTS)
    assert len(lengths) > 1 and joint.tokens.shape[1] == max(lengths)
    assert joint.mask.sum(1).tolist() == [text.encode([p]).tokens.shape[1] for p in PROMPTS]


def test_a_truncated_prompt_is_reported_with_its_length(qwen3, recwarn):
    text = encoder("qwen3", qwen3[0], length=12)
    text.encode(["red"])
    assert not [each for each in recwarn if "is cut" in str(each.message)]
    with pytest.warns(UserWarning, match=r"a prompt of \d+ tokens.* is cut at 12: 'red red"):
        text.encode(["blue", "red " * 20])


@pytest.mark.parametrize("content", ["{", "[1]", "nothing"])
def test_an_invalid_config_json_is_named(tmp_path, content):
    releases.qwen3(tmp_path)
    (tmp_path / "text_encoder" / "config.json").write_text(content)
    for ask in (lambda text: text.skeletons(), lambda text: text.encode(["red"])):
        with pytest.raises(CorruptCheckpoint, match=r"config\.json"):
            ask(encoder("qwen3", tmp_path))


def test_an_encoder_rebuilt_from_its_config_gives_equal_embeddings(qwen3):
    text = encoder("qwen3", qwen3[0])
    again = build_text(text.name, text.config())
    assert torch.equal(again.encode(PROMPTS[:1]).tokens, text.encode(PROMPTS[:1]).tokens)
    assert (
        again.fingerprint()
        == text.fingerprint()
        != encoder("qwen3", qwen3[0], layers=[1, 2, 3]).fingerprint()
    )
    torch.testing.assert_close(
        text.null().tokens[0], text.encode(PROMPTS).tokens[2], atol=1e-5, rtol=1e-5
    )


def test_missing_layers_and_fp16_are_refused(qwen3):
    with pytest.raises(CheckpointMismatch, match=r"layer 9 is read and config\.json has 4"):
        _ = encoder("qwen3", qwen3[0], layers=[9]).text_spec
    with pytest.raises(ConfigError, match="pass 65504"):
        encoder("qwen3", qwen3[0], dtype="float16")


def test_the_chat_template_is_fetched_and_part_of_the_fingerprint(tmp_path, monkeypatch):
    from tinyflux_pl.weights import hub

    releases.qwen3(tmp_path)
    template = tmp_path / "tokenizer" / "chat_template.jinja"
    before = encoder("qwen3", tmp_path).fingerprint()
    template.write_text(template.read_text() + "!")
    assert encoder("qwen3", tmp_path).fingerprint() != before
    calls = []
    monkeypatch.setattr(
        hub, "_fetch", lambda name, revision, allow: calls.extend(allow) or tmp_path
    )
    _ = encoder("qwen3", "owner/name", revision="0123456789" * 4).text_spec
    assert "tokenizer/*.jinja" in calls and "text_encoder/model-*.safetensors" in calls
