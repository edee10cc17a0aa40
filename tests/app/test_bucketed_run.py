"""A run over frames of several ratios, resumed in the middle of an epoch, ends in the same bits."""

import json

import pytest
import torch
from PIL import Image

from tests.app.runs import SMALLEST, run
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import ConfigError

SIZES = ((32, 32), (64, 20), (20, 64), (40, 24), (24, 40), (33, 32), (60, 22))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("framed") / "photos"
    (root / "often").mkdir(parents=True)
    for i, size in enumerate(SIZES):
        path = root / ("often" if i == 1 else "") / f"{i}.png"
        Image.new("RGB", size, (30 * i, 90, 200 - 20 * i)).save(path)
        path.with_suffix(".txt").write_text(f"picture {i}, red, wide, old")
    return root


def options(photos, *more):
    return (
        *SMALLEST,
        "model=tiny",
        "data=folder",
        f"data.root={photos}",
        "data.image_size=32",
        "data.buckets.enabled=true",
        "data.buckets.step=8",
        "data.captions.shuffles=3",
        "data.folders={often: {repeats: 2}}",
        "data.validation_fraction=0.2",
        "hardware.batch_size=2",
        "callbacks.checkpoint.every_steps=3",
        "callbacks.preview.every_steps=0",
        "callbacks.preview.count=1",
        "callbacks.validation.every_steps=0",
        *more,
    )


def test_a_resumed_run_over_frames_ends_in_the_same_bits(photos, tmp_path):
    config = run("train", tmp_path, *options(photos, "steps=6", "run=straight"))
    run("train", tmp_path, *options(photos, "steps=6", "run=stopped"))
    stopped = tmp_path / "outputs" / "stopped" / "checkpoints"
    for folder in stopped.glob("step_0000006"):
        folder.rename(tmp_path / "taken_away")
    (tmp_path / "outputs" / "stopped" / "results.json").unlink(missing_ok=True)
    run("train", tmp_path, *options(photos, "steps=6", "run=stopped", "resume=auto"))
    straight = directory.read(tmp_path / "outputs" / "straight" / "checkpoints" / "step_0000006")
    again = directory.read(stopped / "step_0000006")
    for which in ("raw", "averaged"):
        expected, resumed = straight.weights(which), again.weights(which)
        assert expected.keys() == resumed.keys()
        assert all(torch.equal(value, resumed[key]) for key, value in expected.items())
    store = tmp_path / "cache" / "folder" / "train" / "manifest.json"
    manifest = json.loads(store.read_text())
    assert len(manifest["segments"]) > 1 and sum(manifest["segments"]) == manifest["total"]
    assert config["data"]["buckets"]["enabled"]


def test_frames_that_codec_and_patches_cannot_cut_are_refused_first(photos, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run("train", tmp_path, *options(photos, "data.buckets.step=6", "steps=1"))
    assert caught.value.where == "data.buckets.step" and not (tmp_path / "cache").exists()
