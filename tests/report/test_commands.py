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
def test_a_quoted_word_round_trips_through_a_shell(word):
    assert shlex.split(commands.words("python", word)) == ["python", word]


def test_control_characters_of_a_caption_are_escaped():
    assert "\x1b" not in commands.words("prompt=a\x1b[2J")


def run_with_checkpoint(tmp_path, **options):
    run = run_files.read(folders.write_run(tmp_path / "demo", **options))
    run.checkpoints.append(SavedStep(tmp_path / "demo/checkpoints/step_0000100", 100, "abc", 1))
    return run


def lines(run):
    return dict(commands._lines(run))


def test_a_finished_run_offers_commands_to_sample_and_continue(tmp_path):
    commands_of_page = lines(run_with_checkpoint(tmp_path))
    assert (
        'prompt="a large red circle, top left" n=4 seed=1' in commands_of_page["Draw four pictures"]
    )
    longer = commands_of_page["Train on, to twice as many steps"]
    assert longer.endswith("steps=200 run=demo resume=auto") and longer.count("run=") == 1


def test_a_stopped_run_offers_the_command_that_resumes_it(tmp_path):
    commands_of_page = lines(run_with_checkpoint(tmp_path, finished=False))
    line = commands_of_page["Resume from the newest checkpoint, bit for bit"]
    assert "model=tiny" in line and line.endswith("run=demo resume=auto")


def test_a_run_without_checkpoint_offers_the_command_that_restarts_it(tmp_path):
    commands_of_page = lines(run_files.read(folders.write_run(tmp_path / "demo")))
    assert "resume=auto" not in commands_of_page["Start it again"]
