"""A run that another process has finished meanwhile is not begun anew over it."""

from contextlib import contextmanager

import pytest

from tests.app.runs import SMALLEST, configuration
from tinyflux_pl.app import run as recipes
from tinyflux_pl.core.errors import ConfigError


def test_a_run_trained_between_check_and_lock_is_refused(tmp_path, monkeypatch):
    locked_run_dir = recipes.locked_run_dir

    @contextmanager
    def after_another(folder):
        done = folder / "checkpoints" / "step_0000004" / "manifest.json"
        done.parent.mkdir(parents=True)
        done.write_text("{}")
        with locked_run_dir(folder):
            yield

    monkeypatch.setattr(recipes, "locked_run_dir", after_another)
    with pytest.raises(ConfigError, match="already has checkpoints") as caught:
        recipes.train(configuration("train", tmp_path, *SMALLEST, "run=twice"))
    assert (
        "resume=auto" in caught.value.cure
        and not (tmp_path / "outputs" / "twice" / "config.json").exists()
    )
