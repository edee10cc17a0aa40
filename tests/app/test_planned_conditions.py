"""A model of sequences refuses prompts, and files that do not fit, before its weights are read."""

import numpy as np
import pytest

from tests.app.runs import run
from tests.app.sequence_files import pairs
from tinyflux_pl.core.errors import ConfigError, DataError
from tinyflux_pl.inference.pipeline import Pipeline


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    np.savez(folder / "pairs.npz", **pairs())
    words = ("model=flux_core", "data=sequences", f"data.root='{folder / 'pairs.npz'}'", "steps=1")
    words += ("data.validation_fraction=0.2", "hardware.precision=32-true", "run=whole")
    run("train", folder, *words)
    return folder


@pytest.mark.parametrize(
    ("word", "error", "reason"),
    [
        ("prompt=red", ConfigError, "takes sequences, not prompts"),
        ("condition='{}/none.npz'", DataError, "none.npz"),
        ("condition='{}/pairs.npz'", AssertionError, "the weights are read"),
    ],
)
def test_prompts_and_missing_files_are_refused(root, monkeypatch, word, error, reason):
    def read(*_, **__):
        raise AssertionError("the weights are read")

    monkeypatch.setattr(Pipeline, "from_checkpoint", read)
    with pytest.raises(error, match=reason):
        run("generate", root, f"checkpoint='{root}/outputs/whole'", word.format(root))
