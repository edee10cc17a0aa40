"""A word added to a text encoder is read as its vectors, and only they learn."""

import pytest
import torch

from tests import releases_flux1, releases_flux2, releases_stability
from tests.app.runs import settings
from tinyflux_pl.config.build import build
from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.text.hashed_words import HashedWords
from tinyflux_pl.text.learned_words import LearnedWord

RELEASES = {
    "sdxl": ("sdxl", releases_stability.sdxl, (), {"clip_l", "clip_g"}),
    "sd3": ("sd35_medium", releases_stability.sd35, (), {"clip_l", "clip_g", "t5xxl"}),
    "flux1": ("flux1_dev", releases_flux1.flux1, ("text.length=16",), {"clip_l", "t5xxl"}),
    "flux2": (
        "flux2_klein_4b",
        lambda folder: releases_flux2.flux2(folder, guided=False),
        ("text.length=64", "text.layers=[1,2,4]"),
        {"language_model"},
    ),
    "flux3": (
        "flux3",
        releases_flux2.flux3,
        ("text.length=64", "text.layers=[1,2,4]"),
        {"language_model"},
    ),
}


@pytest.fixture(scope="module", params=("hashed", *RELEASES))
def encoder(request, tmp_path_factory):
    """An encoder, and the tables that a word has vectors in."""
    if request.param == "hashed":
        return HashedWords(16), {"hashed", "hashed_pooled"}
    model, save, words, tables = RELEASES[request.param]
    project = tmp_path_factory.mktemp(request.param)
    save(project / "release")
    chosen = (f"model={model}", f"model.weights='{project}/release'", "text.dtype=float32", *words)
    return build(settings("generate", project, *chosen).text, "text"), tables


def same(one, other):
    return all(torch.equal(getattr(one, k), getattr(other, k)) for k in ("tokens", "pooled"))


def test_a_word_with_a_known_word_s_vectors_is_read_as_that_word(encoder):
    text, tables = encoder
    word = LearnedWord("crimson", text.word_widths())
    assert set(word.tables) == tables
    word.fill(text.word_vectors("red"))
    reader = text.with_words([word])
    prompts = ["a red circle", "a blue square"]
    expected = text.encode(prompts)
    answer = reader.encode(["a crimson circle", "a blue square"])
    torch.testing.assert_close(answer.tokens, expected.tokens)
    if text.name != "hashed":  # whose pooled vector also names the pairs of neighbours
        torch.testing.assert_close(answer.pooled, expected.pooled)
    assert same(text.encode(prompts), expected), "the encoder itself is as it was"
    assert text.fingerprint() != reader.fingerprint()


def test_several_vectors_are_read_as_several_words(encoder):
    text, _ = encoder
    word = LearnedWord("crimson", text.word_widths(), 2)
    word.fill(text.word_vectors("red blue"))
    answer = text.with_words([word]).encode(["a crimson circle"])
    torch.testing.assert_close(answer.tokens, text.encode(["a red blue circle"]).tokens)
    assert text.lengths(["a red blue circle"]) == text.with_words([word]).lengths(
        ["a crimson circle"]
    )


def test_every_table_learns_and_nothing_else(encoder):
    text, _ = encoder
    word = LearnedWord("crimson", text.word_widths())
    word.fill(text.word_vectors("red"))
    reader = text.with_words([word])
    with torch.inference_mode():  # a preview may come first
        reader.encode(["a crimson circle"])
    answer = reader.encode(["a crimson circle"])
    (answer.tokens.square().sum() + answer.pooled.square().sum()).backward()
    assert all(table.grad is not None and table.grad.abs().sum() > 0 for table in word.parameters())
    null = reader.null()
    assert not null.tokens.requires_grad and same(null, text.null())


def test_words_of_other_encoders_and_texts_that_are_no_word_are_refused(encoder):
    text, tables = encoder
    with pytest.raises(CheckpointMismatch, match="has vectors"):
        text.with_words([LearnedWord("crimson", dict.fromkeys(tables, 3))])
    if text.name == "hashed":
        with pytest.raises(ConfigError, match="one word"):
            text.with_words([LearnedWord("<red-1>", text.word_widths())])
        return
    with pytest.raises(ConfigError, match="already"):
        text.with_words([LearnedWord("red", text.word_widths())]).encode(["red"])


def test_a_prompt_is_expanded_at_complete_words_only():
    word = LearnedWord("<mug>", {}, 2)
    assert word.expanded("a <mug>, and <mug>s") == "a <mug> <mug>x1, and <mug>s"
    assert LearnedWord("pink", {}, 2).expanded("pink pinkish") == "pink pinkx1 pinkish"
