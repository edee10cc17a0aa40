"""Fault 31: a command given twice, or into a foreign folder, overwrites nothing."""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.app.runs import SMALLEST, configuration, run
from tests.faults import forks
from tests.faults.conftest import times
from tinyflux_pl.app import run as recipes
from tinyflux_pl.core.errors import ConfigError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    run("train", root, *SMALLEST, "run=first", "steps=1")
    return root


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_a_run_that_was_finished_while_the_second_start_waited_is_left_alone(
    tmp_path, figure, monkeypatch
):
    """The second start finds no run and locks the folder only after the first has finished."""
    owned, tried, passed = recipes.locked_run_dir, times(1, 5), 0
    for number in range(tried):
        words = (*SMALLEST, f"run=twice_{number}", "steps=1")
        folder = tmp_path / "outputs" / f"twice_{number}"

        before: dict[str, str] = {}

        @contextmanager
        def late(run_dir, words=words, before=before):
            monkeypatch.setattr(recipes, "locked_run_dir", owned)
            run("train", tmp_path, *words)
            before.update(content(run_dir))
            with owned(run_dir):
                yield

        monkeypatch.setattr(recipes, "locked_run_dir", late)
        try:
            run("train", tmp_path, *words)
        except ConfigError as error:
            passed += "already has checkpoints" in error.what and content(folder) == before
    figure(31, "a second start after the first came to its end", passed, tried)


FOREIGN = (
    "results.json",
    "csv/metrics.csv",
    "samples/step_0000001.png",
    "skipped.jsonl",
    "checkpoints/mine.txt",
)


@pytest.mark.parametrize("name", FOREIGN)
def test_no_run_starts_in_a_foreign_folder(tmp_path, name):
    folder = tmp_path / "outputs" / "mine"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine")
    with pytest.raises(ConfigError, match="run=NAME"):
        recipes.train(configuration("train", tmp_path, *SMALLEST, "run=mine", "steps=1"))
    assert (folder / name).read_text() == "mine"


def test_two_commands_that_draw_into_one_folder_keep_every_picture(trained, tmp_path, figure):
    """Both list the folder before either writes; a grid of the user exists already."""
    tried, passed = times(1, 5), 0
    for number in range(tried):
        folder, go = tmp_path / f"drawn_{number}", tmp_path / f"go_{number}"
        folder.mkdir()
        (folder / "grid.png").write_text("mine")

        def work(seed: int, folder: Path = folder, go: Path = go) -> None:
            from tinyflux_pl.sampling.images import ImageSampler

            batches = ImageSampler.batches

            def after_both(self, *args, **named):
                (folder / f".ready_{seed}").touch()
                while not go.exists():
                    time.sleep(0.01)
                return batches(self, *args, **named)

            ImageSampler.batches = after_both
            chosen = (
                f"checkpoint='{trained}/outputs/first'",
                "prompt=x",
                "n=3",
                f"seed={seed}",
                "sampler.steps=1",
            )
            recipes.generate(configuration("generate", tmp_path, *chosen, f"output='{folder}'"))

        with (
            forks.Child(lambda: work(1), tmp_path / "one.log") as one,
            forks.Child(lambda: work(2), tmp_path / "two.log") as two,
        ):
            while len(list(folder.glob(".ready_*"))) < 2 and one.alive() and two.alive():
                time.sleep(0.01)
            go.touch()
            ended = one.wait(), two.wait()
        names = [path.name for path in folder.glob("*.png")]
        pictures = {path.read_bytes() for path in folder.glob("image_*.png")}
        grids = len([name for name in names if name.startswith("grid")])
        complete = [e.code for e in ended] == [0, 0] and len(pictures) == 6 and grids == 3
        passed += complete and (folder / "grid.png").read_text() == "mine"
        if not passed:
            print(ended[0].printed[-800:], ended[1].printed[-800:], sorted(names))
    figure(31, "two commands that draw into one folder", passed, tried)
