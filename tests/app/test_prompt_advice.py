"""A checkpoint says which prompts it was trained for, and what of a prompt is new to it; no weight
is read for it.
"""

import json

import pytest

from tests.app.runs import SMALLEST, configuration, run
from tinyflux_pl.app import prompt_advice
from tinyflux_pl.app import run as recipes
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import ConfigError, CorruptCheckpoint
from tinyflux_pl.data.training_captions import TrainingCaptions

QUICK = ("data.evaluation_prompts=0", "callbacks.validation.every_steps=0", "steps=2")
ASKED = "callbacks.preview.prompts=[a red circle,a dog]"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run whose previews were asked for a prompt that the verifier reads, and for one that it
    does not.
    """
    root = tmp_path_factory.mktemp("project")
    run("train", root, *SMALLEST, *QUICK, "run=x", ASKED)
    return root


def checkpoint(root):
    return root / "outputs" / "x" / "checkpoints" / "step_0000002"


def test_previews_draw_any_prompt_and_measure_those_that_can_be_read(made, capsys):
    rows = (made / "outputs" / "x" / "csv" / "metrics.csv").read_text()
    assert "preview/accuracy_all" in rows
    assert (made / "outputs" / "x" / "samples" / "step_0000002.png").is_file()


def test_help_needs_no_weights(made, tmp_path, capsys):
    copied = tmp_path / "step_0000002"
    copied.mkdir()
    for name in ("config.json", "manifest.json"):
        (copied / name).write_bytes((checkpoint(made) / name).read_bytes())
    config = configuration("generate", tmp_path, f"checkpoint='{copied}'", "prompt=help")
    assert recipes.generate(config) == 0
    said = capsys.readouterr().out
    assert "name a shape (circle" in said and 'prompt="' in said and "48 training captions" in said
    assert list(tmp_path.glob("**/*.png")) == []


def test_help_of_a_runs_folder_is_that_of_its_newest_checkpoint(made, tmp_path, capsys):
    run("generate", tmp_path, f"checkpoint='{made}/outputs/x'", "prompt=help")
    assert "training captions" in capsys.readouterr().out


def test_help_without_a_checkpoint_says_what_to_give(tmp_path, capsys):
    with pytest.raises(ConfigError, match="checkpoint"):
        run("generate", tmp_path, "prompt=help")


def test_a_description_that_was_changed_is_refused(made, tmp_path):
    copied = tmp_path / "step_0000002"
    copied.mkdir()
    for name in ("config.json", "manifest.json"):
        (copied / name).write_bytes((checkpoint(made) / name).read_bytes())
    (copied / "config.json").write_bytes(b"{}")
    with pytest.raises(CorruptCheckpoint, match=r"config\.json"):
        prompt_advice.captions_of(copied)


def test_checkpoints_of_earlier_versions_draw_and_say_that_they_say_nothing(made, tmp_path, capsys):
    told = directory.read(checkpoint(made))
    older = {key: value for key, value in told.config.items() if key != "captions"}
    weights = told.weights("raw")
    directory.save(
        tmp_path / "old", step=2, config=older, weights=weights, averaged=None, state=None
    )
    run("generate", tmp_path, f"checkpoint='{tmp_path}/old'", "prompt=help")
    assert "does not describe its captions" in capsys.readouterr().out
    run("generate", tmp_path, f"checkpoint='{tmp_path}/old'", "prompt=a red dog", "run=drawn")
    assert "note:" not in capsys.readouterr().out
    assert (tmp_path / "outputs" / "drawn" / "image_0000.png").is_file()


def test_new_words_and_missing_attributes_are_told_before_drawing(made, tmp_path, capsys):
    run(
        "generate",
        tmp_path,
        f"checkpoint='{checkpoint(made)}'",
        "prompt=a red dog",
        "run=drawn",
        "grid=0",
    )
    said = capsys.readouterr().out
    assert "in no training caption: dog" in said and "names no shape" in said
    assert sorted(path.name for path in (tmp_path / "outputs" / "drawn").glob("*.png")) == [
        "image_0000.png"
    ]


def test_what_a_checkpoint_keeps_is_bounded_and_plain(made):
    kept = json.loads((checkpoint(made) / "config.json").read_text())["captions"]
    known = TrainingCaptions.from_plain(kept)
    assert (
        known is not None
        and known.sources["shapes"].captions == 48
        and len(known.sources["shapes"].examples) <= 6
    )
    listed = prompt_advice.help_lines(known)[-1]
    assert listed.index("a, ") < listed.index("circle"), "the most frequent first"


def test_thousands_of_prompts_are_not_all_judged_aloud():
    known = TrainingCaptions({}, {"red": 1}, 1)
    assert (
        len(prompt_advice.notes(known, [f"word{i}" for i in range(1000)]))
        <= prompt_advice.MAX_PROMPTS + 1
    )
