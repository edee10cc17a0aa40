"""Captions become texts by rule, the same ones at every start."""

import pytest

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data.records.caption_rules import CaptionRules


def test_trigger_prefix_and_suffix_frame_every_caption():
    rules = CaptionRules(trigger="sks", prefix="a photo of ", suffix=", 2020")
    assert rules.variants(["a dog"]) == ("sks a photo of a dog, 2020",)
    assert rules.variants(["a sks dog"]) == ("a photo of a sks dog, 2020",)
    assert rules.variants(["dog, old"]) == ("sks, a photo of dog, old, 2020",)
    assert rules.variants([]) == () and rules.variants([" "]) == ()


@pytest.mark.parametrize(
    ("caption", "trigger"),
    [
        ("sks, a dog", "sks"),
        ("a photo of sks.", "sks"),
        ("a dog, sks", "sks"),
        ("a dog\nsks\nat night", "sks"),
        ("(sks:1.2)", "sks"),
        ("a <mug>, blue", "<mug>"),
        ("a sks dog", " sks "),
    ],
)
def test_the_trigger_is_recognised_with_punctuation(caption, trigger):
    assert CaptionRules(trigger=trigger).variants([caption]) == (caption,)


def test_a_trigger_within_a_longer_word_does_not_count():
    assert CaptionRules(trigger="sks").variants(["asks a dog"]) == ("sks asks a dog",)
    assert CaptionRules(trigger="sks ").variants(["a, b"]) == ("sks, a, b",)
    assert CaptionRules(trigger=" ").variants(["a"]) == ("a",)


def test_captions_of_several_lines_end_at_line_ends_alone():
    text = "a\u2028b\x0bc\x85d\r\nsecond\rthird\n"
    assert CaptionRules(several=True).written(text) == ("a\u2028b\x0bc\x85d", "second", "third")


def test_shuffles_keep_the_first_tags_and_lose_none_without_dropout():
    rules = CaptionRules(shuffles=5, keep_tags=2)
    texts = rules.variants(["a, b, c, d, e"])
    assert texts[0] == "a, b, c, d, e" and len(texts) > 3
    for text in texts:
        tags = text.split(", ")
        assert tags[:2] == ["a", "b"] and sorted(tags) == ["a", "b", "c", "d", "e"]
    assert texts == rules.variants(["a, b, c, d, e"])  # the same at every start
    assert texts != rules.variants(["a, b, c, d, f"])


def test_tag_dropout_leaves_tags_out_of_the_copies_alone():
    texts = CaptionRules(shuffles=20, tag_dropout=0.5).variants(["a, b, c, d, e, f, g, h"])
    assert texts[0].count(",") == 7
    lengths = [text.count(",") for text in texts[1:]]
    assert 2 < sum(lengths) / len(lengths) < 5 and all(t.startswith("a") for t in texts)


def test_several_captions_are_lines_of_a_file():
    assert CaptionRules().written(" a\nb\n") == ("a\nb",)
    assert CaptionRules(several=True).written(" a\n\nb\n") == ("a", "b")
    assert CaptionRules(shuffles=1, keep_tags=0).variants(["x", "y"]) == ("x", "y")


@pytest.mark.parametrize(
    "keys",
    [
        {"shuffles": 64},
        {"shuffles": -1},
        {"keep_tags": -1},
        {"shuffles": 1, "tag_dropout": 1.0},
        {"tag_dropout": 0.5},
        {"tag_separator": " "},
        {"triger": "x"},
    ],
)
def test_wrong_keys_are_refused_by_name(keys):
    with pytest.raises(ConfigError) as caught:
        CaptionRules.of(keys)
    assert caught.value.where.split(".")[-1] in keys
