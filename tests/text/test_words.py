"""Different captions have different words in every script; ASCII words are unchanged."""

import itertools
import re

import pytest
import torch

from tinyflux_pl.text.hashed_words import HashedWords
from tinyflux_pl.text.words import words_of

ASCII = ["A Red-circle, 3 squares_4!", "a+b=c", "", "  ", "?!", "don't", "x_y", "(1,2)", "$5 & 50%"]


@pytest.mark.parametrize("prompt", ASCII)
def test_ascii_text_is_split_as_for_stored_embeddings(prompt):
    assert words_of(prompt) == re.findall(r"[^\W_]+", prompt.lower())


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("Ünïcode 圆", ["ünïcode", "圆"]),
        ("cafe\u0301 e\u0301te\u0301", ["café", "été"]),
        ("का के कि की", ["का", "के", "कि", "की"]),
        ("红色的猫", ["红", "色", "的", "猫"]),
        ("赤いネコ", ["赤", "い", "ネ", "コ"]),
        ("แมวสีแดง", ["แ", "ม", "ว", "สี", "แ", "ด", "ง"]),
        ("قطة حَمراء", ["قطة", "حَمراء"]),
        ("kırmızı kedi", ["kırmızı", "kedi"]),
        ("a 🔴 circle", ["a", "🔴", "circle"]),
        ("🔴🔵", ["🔴", "🔵"]),
        ("👨‍👩‍👧 👍🏽 ❤️", ["👨‍👩‍👧", "👍🏽", "❤"]),
        ("🇩🇪🇫🇷", ["🇩🇪", "🇫🇷"]),
        ("“…” — ！", []),
        ("빨간 고양이", ["빨간", "고양이"]),
        ("´` ¨", []),
    ],
)
def test_words_of_other_scripts_are_split_by_their_rules(prompt, words):
    assert words_of(prompt) == words


ALIKE = [
    ["कि", "की", "का के", "कि को", "क"],
    ["猫坐在垫子上", "狗坐在垫子上", "垫子坐在猫上", "猫"],
    ["แมวสีแดง", "แมวสีดำ", "แมว"],
    ["🔴", "🔵", "", "🔴🔵", "🔵🔴", "👍", "👍🏽", "👍🏿"],
    ["👨‍👩‍👧", "👨👩👧", "👨‍👩‍👦"],
    ["🇩🇪", "🇪🇩", "🇩 🇪"],
    ["שָׁלוֹם", "שָׁלֵם", "שלום"],
    ["1⃣", "1", "1 "][:2],
    ["一" * 40 + "猫", "一" * 40 + "狗"],
]


@pytest.mark.parametrize("captions", ALIKE)
@pytest.mark.filterwarnings("ignore:a prompt of")
def test_different_captions_have_different_embeddings(captions):
    embeddings = HashedWords(width=32).encode(captions)
    for i, k in itertools.combinations(range(len(captions)), 2):
        same = torch.equal(embeddings.tokens[i], embeddings.tokens[k]) and torch.equal(
            embeddings.pooled[i], embeddings.pooled[k]
        )
        assert not same, (captions[i], captions[k])


def test_ascii_embeddings_equal_those_of_the_embedded_teachers():
    embeddings = HashedWords(width=8, length=3).encode(["a red circle"])
    assert embeddings.mask.all()
    torch.testing.assert_close(embeddings.pooled[0], torch.tensor(POOLED), rtol=0, atol=1e-6)


POOLED = [0.0779441, 1.3624429, 1.6556728, -0.4306732, -0.3979328, -0.2960157, 0.1818498, 1.7122782]
