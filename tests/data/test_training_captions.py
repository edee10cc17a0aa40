"""What a checkpoint keeps of its captions: grammars, examples, counted words within bounds."""

import pytest

from tinyflux_pl.data import training_captions
from tinyflux_pl.data.tasks.shapes.records import Shapes
from tinyflux_pl.data.training_captions import TrainingCaptions, readable


class FreeText:
    name, grammar = "folder", ""


def shapes(count=50):
    records = Shapes(count=count)
    return records, [records[i].caption for i in range(count)], count


def test_it_comes_back_from_plain_data():
    known = TrainingCaptions.of({"shapes": shapes(), "mine": (FreeText, ["A Red dog", "a dog"], 2)})
    assert TrainingCaptions.from_plain(known.plain()) == known
    assert known.words["dog"] == 2 and known.sources["mine"].examples == ["A Red dog", "a dog"]
    assert "circle" in known.sources["shapes"].grammar and known.all_words


@pytest.mark.parametrize(
    "kept", [None, {}, [], "x", {"sources": 1}, {"sources": {"a": {"records": 1}}}, {"words": {}}]
)
def test_what_was_not_written_by_this_version_says_nothing(kept):
    assert TrainingCaptions.from_plain(kept) is None


def test_the_words_are_bounded_and_it_says_so(monkeypatch):
    monkeypatch.setattr(training_captions, "MAX_WORDS", 3)
    known = TrainingCaptions.of({"mine": (FreeText, ["a b c d e", "a b c", "a b"], 3)})
    assert list(known.words) == ["a", "b", "c"] and known.distinct == 5 and not known.all_words
    assert not TrainingCaptions.of({"mine": (FreeText, ["a"], 2)}).all_words, (
        "only some captions were counted"
    )


def test_new_words_and_what_the_grammar_lacks_are_told():
    known = TrainingCaptions.of({"shapes": shapes(200)})
    assert (
        known.unseen("a red dog, red cat") == ["dog", "cat"] and known.unseen("A RED circle!") == []
    )
    assert (
        known.objection("a red circle") == ""
        and known.objection("a large blue square, top left") == ""
    )
    assert "names no shape" in known.objection("a large red")
    assert "'dog'" in known.objection("a red circle dog")
    assert "two values of colour (red, blue)" in known.objection("a red blue circle")


def test_one_source_of_free_text_beside_a_grammar_allows_everything():
    known = TrainingCaptions.of({"shapes": shapes(), "mine": (FreeText, ["a dog"], 1)})
    assert known.objection("a dog") == ""


def test_the_prompts_that_a_verifier_can_read_are_told_apart():
    assert readable(Shapes(count=1), ["a red circle", "a dog"]) == ["a red circle"]
    assert readable(FreeText, ["a dog"]) == ["a dog"]
