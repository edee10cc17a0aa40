"""Fault 31: a command given twice, or into a folder of somebody else: nothing that is there is overwritten."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.app.runs import SMALLEST, configuration, run
from tests.faults.conftest import times
from tinyflux_pl.app import run as recipes
from tinyflux_pl.core.errors import ConfigError


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_run_that_was_finished_while_the_second_start_waited_is_left_alone(tmp_path, figure, monkeypatch):
    """The second start finds no run, and owns its folder only after the first has come to its end."""
    owned, tried, held = recipes.owned, times(1, 5), 0
    for number in range(tried):
        words = (*SMALLEST, f"run=twice_{number}", "steps=1")
        folder = tmp_path / "outputs" / f"twice_{number}"

        before: dict[str, str] = {}

        @contextmanager
        def late(run_dir, words=words, before=before):
            monkeypatch.setattr(recipes, "owned", owned)
            run("train", tmp_path, *words)
            before.update(content(run_dir))
            with owned(run_dir):
                yield

        monkeypatch.setattr(recipes, "owned", late)
        try:
            run("train", tmp_path, *words)
        except ConfigError as error:
            held += "already has checkpoints" in error.what and content(folder) == before
    figure(31, "a second start after the first came to its end", held, tried)


FOREIGN = ("results.json", "csv/metrics.csv", "samples/step_0000001.png", "skipped.jsonl", "checkpoints/mine.txt")


@pytest.mark.parametrize("name", FOREIGN)
def test_no_run_begins_in_a_folder_of_somebody_else(tmp_path, name):
    folder = tmp_path / "outputs" / "mine"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine")
    with pytest.raises(ConfigError, match="run=NAME"):
        recipes.train(configuration("train", tmp_path, *SMALLEST, "run=mine", "steps=1"))
    assert (folder / name).read_text() == "mine"
