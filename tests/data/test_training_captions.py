"""A checkpoint's caption description: grammars, examples, counted words within bounds."""

import pytest

from tinyflux_pl.data import training_captions
from tinyflux_pl.data.tasks.shapes.records import Shapes
from tinyflux_pl.data.training_captions import TrainingCaptions, readable


class FreeText:
    name, grammar = "folder", ""


def shapes(count=50):
    records = Shapes(count=count)
    return records, [records[i].caption for i in range(count)], count


def test_training_captions_round_trip_as_plain_data():
    captions = TrainingCaptions.of(
        {"shapes": shapes(), "mine": (FreeText, ["A Red dog", "a dog"], 2)}
    )
    assert TrainingCaptions.from_plain(captions.plain()) == captions
    assert captions.words["dog"] == 2 and captions.sources["mine"].examples == [
        "A Red dog",
        "a dog",
    ]
    assert "circle" in captions.sources["shapes"].grammar and captions.all_words


@pytest.mark.parametrize(
    "kept", [None, {}, [], "x", {"sources": 1}, {"sources": {"a": {"records": 1}}}, {"words": {}}]
)
def test_captions_written_by_another_version_are_ignored(kept):
    assert TrainingCaptions.from_plain(kept) is None


def test_the_vocabulary_is_bounded_and_marked_incomplete(monkeypatch):
    monkeypatch.setattr(training_captions, "MAX_WORDS", 3)
    captions = TrainingCaptions.of({"mine": (FreeText, ["a b c d e", "a b c", "a b"], 3)})
    assert (
        list(captions.words) == ["a", "b", "c"]
        and captions.distinct == 5
        and not captions.all_words
    )
    assert not TrainingCaptions.of({"mine": (FreeText, ["a"], 2)}).all_words, (
        "only some captions were counted"
    )


def test_new_words_and_attributes_outside_the_grammar_are_reported():
    captions = TrainingCaptions.of({"shapes": shapes(200)})
    assert (
        captions.unseen("a red dog, red cat") == ["dog", "cat"]
        and captions.unseen("A RED circle!") == []
    )
    assert (
        captions.objection("a red circle") == ""
        and captions.objection("a large blue square, top left") == ""
    )
    assert "names no shape" in captions.objection("a large red")
    assert "'dog'" in captions.objection("a red circle dog")
    assert "two values of colour (red, blue)" in captions.objection("a red blue circle")


def test_a_free_text_source_next_to_a_grammar_accepts_any_prompt():
    captions = TrainingCaptions.of({"shapes": shapes(), "mine": (FreeText, ["a dog"], 1)})
    assert captions.objection("a dog") == ""


def test_prompts_readable_by_a_verifier_are_selected():
    assert readable(Shapes(count=1), ["a red circle", "a dog"]) == ["a red circle"]
    assert readable(FreeText, ["a dog"]) == ["a dog"]
