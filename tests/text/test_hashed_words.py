import os
import subprocess
import sys

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.specs import TextSpec
from tinyflux_pl.text.hashed_words import HashedWords, words_of
from tinyflux_pl.text.registry import build_text


@pytest.fixture
def encoder():
    return HashedWords(width=64, length=8)


def test_words_are_lower_case_letters_and_numbers():
    split = words_of("A Red-circle, 3 squares_4!  Ünïcode 圆")
    assert split == ["a", "red", "circle", "3", "squares", "4", "ünïcode", "圆"]


def test_embeddings_have_documented_shapes_mask_and_norm(encoder):
    embeddings = encoder.encode(["a red circle", "blue"])
    assert embeddings.tokens.shape == (2, 8, 64) and embeddings.pooled.shape == (2, 64)
    assert embeddings.mask.sum(1).tolist() == [3, 1]
    assert not embeddings.tokens[~embeddings.mask].any()
    torch.testing.assert_close(embeddings.pooled.norm(dim=1), torch.full((2,), 8.0))
    assert encoder.text_spec == TextSpec(64, 8, 64)


def test_embeddings_depend_on_spelling_and_not_on_case_or_punctuation(encoder):
    embeddings = encoder.encode(["Red, circle!", "red circle", "red circles"])
    torch.testing.assert_close(embeddings.tokens[0], embeddings.tokens[1], rtol=0, atol=0)
    assert not torch.allclose(embeddings.tokens[1, 1], embeddings.tokens[2, 1])


def test_word_order_changes_tokens_and_pooled_text(encoder):
    embeddings = encoder.encode(
        ["red circle blue square", "blue circle red square", "red circle blue square"]
    )
    assert torch.equal(embeddings.pooled[0], embeddings.pooled[2])
    assert (
        torch.nn.functional.cosine_similarity(embeddings.pooled[0], embeddings.pooled[1], dim=0)
        < 0.9
    )
    first, second = encoder.encode(["red red"]).tokens[0, :2]
    assert not torch.allclose(first, second)


def test_words_are_nearly_orthogonal_with_unit_variance(encoder):
    wide = HashedWords(width=4096, length=2)
    tokens = wide.encode(["red", "blue"]).pooled
    assert abs(torch.nn.functional.cosine_similarity(tokens[0], tokens[1], dim=0)) < 0.1
    words = wide.encode(["red"]).tokens[0, 0] - wide._positions[0]
    assert abs(words.var() - 1) < 0.1 and abs(words.mean()) < 0.1


def test_another_process_gives_the_same_vectors(encoder):
    here = encoder.encode(["red circle"]).pooled.double().sum().item()
    code = (
        "from tinyflux_pl.text.hashed_words import HashedWords as H;"
        "print(repr(H(64, 8).encode(['red circle']).pooled.double().sum().item()))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert float(there.stdout) == here


def test_the_null_text_is_the_empty_prompt_with_one_token(encoder):
    null = encoder.null()
    assert null.mask.sum() == 1
    for prompt in ("", "  ", "?!"):
        torch.testing.assert_close(encoder.encode([prompt]).tokens, null.tokens, rtol=0, atol=0)
    assert not torch.allclose(null.tokens[0, 0], encoder.encode(["a"]).tokens[0, 0])


def test_a_long_prompt_is_truncated_with_a_warning(encoder):
    with pytest.warns(UserWarning, match="10 words is cut at 8"):
        cut = encoder.encode(["a b c d e f g h i j"])
    torch.testing.assert_close(
        cut.tokens, encoder.encode(["a b c d e f g h"]).tokens, rtol=0, atol=0
    )


def test_the_encoder_is_rebuilt_from_its_name_and_config(encoder):
    again = build_text(encoder.name, encoder.config())
    assert again.fingerprint() == encoder.fingerprint() != HashedWords().fingerprint()
    with pytest.raises(ConfigError, match="hashed"):
        build_text("hash", {})
    with pytest.raises(ConfigError, match="depth"):
        build_text("hashed", {"depth": 3})
    with pytest.raises(ConfigError):
        HashedWords(width=7)


def test_masks_are_those_of_the_embeddings(encoder):
    prompts = ["a red circle", "", "one two three four five six seven eight"]
    assert torch.equal(encoder.masks(prompts), encoder.encode(prompts).mask)
