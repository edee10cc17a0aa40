"""`export_teacher=` writes a teacher that loads again, with the recipe of its run."""

import json

import pytest

from tests.app.runs import run
from tinyflux_pl.experts import teacher_export
from tinyflux_pl.experts.teacher import embedded

pytestmark = pytest.mark.filterwarnings("ignore")
UNET = (
    *("model=unet", "model.block_out_channels=[8,8]", "model.norm_num_groups=4", "text.width=16"),
    *("path=linear_to_noise", "optimizer=adamw", "timesteps.shift=5.0"),
)


def test_a_teacher_is_written_with_what_decided_its_training(tmp_path, monkeypatch):
    folder = tmp_path / "teachers"
    folder.mkdir()
    monkeypatch.setattr(teacher_export, "ASSETS", folder)
    run("train", tmp_path, *UNET, "steps=2", "export_teacher=lune", "run=small")
    recipe = json.loads((folder / "lune.json").read_text())["recipe"]
    assert recipe["steps"] == 2 and recipe["timesteps"]["shift"] == 5.0
    assert recipe["guidance"]["scale"] == 3.0 and recipe["path"]["noise_at"] == 1
    assert {"accuracies", "validation_loss", "optimizer", "schedule", "data"} <= recipe.keys()
    assert embedded("lune", folder).denoiser.path.name == "linear"
