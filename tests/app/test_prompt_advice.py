"""A checkpoint describes its training captions; prompts are compared without reading weights."""

import json

import pytest

from tests.app.runs import SMALLEST, configuration, run
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.drawing import prompt_advice
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import ConfigError, CorruptCheckpoint
from tinyflux_pl.data.training_captions import TrainingCaptions

QUICK = ("data.evaluation_prompts=0", "callbacks.validation.every_steps=0", "steps=2")
PREVIEWS = "callbacks.preview.prompts=[a red circle,a dog]"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A run with one verifiable and one unverifiable preview prompt."""
    root = tmp_path_factory.mktemp("project")
    run("train", root, *SMALLEST, *QUICK, "run=x", PREVIEWS)
    return root


def checkpoint(root):
    return root / "outputs" / "x" / "checkpoints" / "step_0000002"


def test_previews_accept_any_prompt_and_measure_verifiable_ones(project, capsys):
    rows = (project / "outputs" / "x" / "csv" / "metrics.csv").read_text()
    assert "preview/accuracy_all" in rows
    assert (project / "outputs" / "x" / "samples" / "step_0000002.png").is_file()


def test_prompt_help_needs_no_weights(project, tmp_path, capsys):
    copied = tmp_path / "step_0000002"
    copied.mkdir()
    for name in ("config.json", "manifest.json"):
        (copied / name).write_bytes((checkpoint(project) / name).read_bytes())
    config = configuration("generate", tmp_path, f"checkpoint='{copied}'", "prompt=help")
    assert recipes.generate(config) == 0
    output = capsys.readouterr().out
    assert (
        "name a shape (circle" in output
        and 'prompt="' in output
        and "48 training captions" in output
    )
    assert list(tmp_path.glob("**/*.png")) == []


def test_prompt_help_of_a_run_folder_is_that_of_its_newest_checkpoint(project, tmp_path, capsys):
    run("generate", tmp_path, f"checkpoint='{project}/outputs/x'", "prompt=help")
    assert "training captions" in capsys.readouterr().out


def test_prompt_help_without_a_checkpoint_is_refused_with_the_key(tmp_path, capsys):
    with pytest.raises(ConfigError, match="checkpoint"):
        run("generate", tmp_path, "prompt=help")


def test_an_altered_caption_description_is_refused(project, tmp_path):
    copied = tmp_path / "step_0000002"
    copied.mkdir()
    for name in ("config.json", "manifest.json"):
        (copied / name).write_bytes((checkpoint(project) / name).read_bytes())
    (copied / "config.json").write_bytes(b"{}")
    with pytest.raises(CorruptCheckpoint, match=r"config\.json"):
        prompt_advice.captions_of(copied)


def test_checkpoints_without_caption_description_sample_with_a_note(project, tmp_path, capsys):
    saved = directory.read(checkpoint(project))
    older = {key: value for key, value in saved.config.items() if key != "captions"}
    weights = saved.weights("raw")
    directory.save(
        tmp_path / "old", step=2, config=older, weights=weights, averaged=None, state=None
    )
    run("generate", tmp_path, f"checkpoint='{tmp_path}/old'", "prompt=help")
    assert "does not describe its captions" in capsys.readouterr().out
    run("generate", tmp_path, f"checkpoint='{tmp_path}/old'", "prompt=a red dog", "run=drawn")
    assert "note:" not in capsys.readouterr().out
    assert (tmp_path / "outputs" / "drawn" / "image_0000.png").is_file()


def test_new_words_and_missing_attributes_are_noted_before_sampling(project, tmp_path, capsys):
    run(
        "generate",
        tmp_path,
        f"checkpoint='{checkpoint(project)}'",
        "prompt=a red dog",
        "run=drawn",
        "grid=0",
    )
    output = capsys.readouterr().out
    assert "in no training caption: dog" in output and "names no shape" in output
    assert sorted(path.name for path in (tmp_path / "outputs" / "drawn").glob("*.png")) == [
        "image_0000.png"
    ]


def test_the_caption_description_of_a_checkpoint_is_bounded_json(project):
    kept = json.loads((checkpoint(project) / "config.json").read_text())["captions"]
    captions = TrainingCaptions.from_plain(kept)
    assert (
        captions is not None
        and captions.sources["shapes"].captions == 48
        and len(captions.sources["shapes"].examples) <= 6
    )
    listed = prompt_advice.help_lines(captions)[-1]
    assert listed.index("a, ") < listed.index("circle"), "the most frequent first"


def test_notes_on_thousands_of_prompts_are_bounded():
    captions = TrainingCaptions({}, {"red": 1}, 1)
    assert (
        len(prompt_advice.notes(captions, [f"word{i}" for i in range(1000)]))
        <= prompt_advice.MAX_PROMPTS + 1
    )
