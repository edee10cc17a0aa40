"""Commands that a shell reads as they were meant."""

import shlex

import pytest

from tests.report import folders
from tinyflux_pl.report import run_files
from tinyflux_pl.report.run_files import SavedStep
from tinyflux_pl.report.sections import commands

NASTY = [
    "prompt=a large red circle, top left",
    'prompt=it\'s "quoted" $(rm -rf .) `x` !',
    "x=[1,2]",
    "++a.b=c d",
    "plain",
    "two words",
    "=",
    "",
]


@pytest.mark.parametrize("word", NASTY)
def test_a_word_comes_back_from_a_shell(word):
    assert shlex.split(commands.words("python", word)) == ["python", word]


def test_nothing_of_a_caption_reaches_a_terminal_as_control():
    assert "\x1b" not in commands.words("prompt=a\x1b[2J")


def run_with_checkpoint(tmp_path, **options):
    run = run_files.read(folders.write_run(tmp_path / "demo", **options))
    run.checkpoints.append(SavedStep(tmp_path / "demo/checkpoints/step_0000100", 100, "abc", 1))
    return run


def lines(run):
    return dict(commands._lines(run))


def test_a_finished_run_is_drawn_from_and_trained_on(tmp_path):
    found = lines(run_with_checkpoint(tmp_path))
    assert 'prompt="a large red circle, top left" n=4 seed=1' in found["Draw four pictures"]
    longer = found["Train on, to twice as many steps"]
    assert longer.endswith("steps=200 run=demo resume=auto") and longer.count("run=") == 1


def test_a_stopped_run_is_resumed_as_it_was_started(tmp_path):
    found = lines(run_with_checkpoint(tmp_path, finished=False))
    line = found["Resume from the newest checkpoint, bit for bit"]
    assert "model=tiny" in line and line.endswith("run=demo resume=auto")


def test_a_run_without_checkpoint_is_started_again(tmp_path):
    found = lines(run_files.read(folders.write_run(tmp_path / "demo")))
    assert "resume=auto" not in found["Start it again"]
