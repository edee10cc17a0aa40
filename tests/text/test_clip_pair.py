"""The two CLIPs and T5: lengths, null text, refusals; tests/families compares with diffusers."""

import pytest
import torch

from tests import releases_stability
from tinyflux_pl.core.errors import ConfigError, HubError
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.text.clip_pair import ClipPairText
from tinyflux_pl.text.registry import build_text

PROMPTS = ["a red circle", "blue square left of the red circle"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sd35")
    releases_stability.sd35(root)
    return str(root)


def test_sd35_reads_three_encoders_one_after_another(folder):
    text = ClipPairText(
        folder, pooled="both", zero_null=False, t5_length=16, sequential=True, batch_size=1
    )
    embeddings = text.encode(PROMPTS)
    assert text.text_spec == TextSpec(width=32, length=93, pooled=20)
    assert (
        embeddings.tokens.shape == (2, 93, 32)
        and embeddings.pooled.shape == (2, 20)
        and bool(embeddings.mask.all())
    )
    assert not embeddings.tokens[:, :77, 24:].any() and not text._models
    joint = ClipPairText(folder, pooled="both", zero_null=False, t5_length=16).encode(PROMPTS)
    torch.testing.assert_close(embeddings.tokens, joint.tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text.null().tokens, text.encode([""]).tokens)


def test_without_t5_its_tokens_are_zero_and_it_is_not_in_the_fingerprint(folder):
    text = ClipPairText(
        folder, pooled="both", zero_null=False, t5_length=16, drop_t5=True, dtype="float16"
    )
    assert not text.encode(PROMPTS).tokens[:, 77:].any()
    assert "t5" not in text.fingerprint() and text.text_spec.width == 32


def test_truncation_is_counted_by_the_encoder_with_the_longest_context(folder):
    long = " ".join(["red circle"] * 100)
    choice = {"pooled": "both", "zero_null": False, "t5_length": 16}
    t5 = ClipPairText(folder, **choice).lengths([PROMPTS[0], long])
    clip = ClipPairText(folder, **choice, drop_t5=True).lengths([PROMPTS[0], long])
    assert not t5[0].cut and t5[1].read == 16 and clip[1].read == 77
    assert t5[1].cut > 0 and clip[1].cut > 0


def test_sdxls_unconditional_is_zero(folder):
    text = ClipPairText(folder, pooled="second")
    assert text.text_spec == TextSpec(width=24, length=77, pooled=10)
    null = text.null()
    assert not null.tokens.any() and not null.pooled.any() and null.tokens.shape == (1, 77, 24)
    assert text.encode([""]).tokens.any()


def test_the_encoder_is_rebuilt_from_its_config(folder):
    text = ClipPairText(folder, pooled="second")
    again = build_text(text.name, text.config())
    assert again.fingerprint() == text.fingerprint()
    assert (
        text.fingerprint() != ClipPairText(folder, pooled="second", zero_null=False).fingerprint()
    )


def test_invalid_dtypes_and_folders_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="overflows"):
        ClipPairText(None, t5_length=256, dtype="float16")
    with pytest.raises(ConfigError, match=r"text\.weights=FOLDER"):
        ClipPairText(None).encode(PROMPTS)
    with pytest.raises(HubError, match="no folder 'text_encoder'"):
        ClipPairText(str(tmp_path)).encode(PROMPTS)
