"""Frozen tensors are stored once; in either layout the averages are a complete network."""

import torch

from tinyflux_pl.checkpoints import directory, manifest
from tinyflux_pl.core import files


def test_a_tensor_without_average_is_stored_once_and_averages_load_completely(tmp_path):
    weights = {
        "w": torch.full((3, 2), 1.0),
        "frozen": torch.full((1000,), 7.0),
        "buffer": torch.arange(3),
    }
    saved = dict(
        step=1, config={}, weights=weights, averaged={"w": torch.full((3, 2), 2.0)}, state=None
    )
    checkpoint = directory.save(tmp_path / "step_1", **saved)
    assert files.read_tensors(tmp_path / "step_1" / "ema.safetensors").keys() == {"w"}
    for read in (checkpoint, directory.read(tmp_path / "step_1")):
        averaged = read.weights("averaged")
        assert averaged.keys() == weights.keys() and averaged["w"][0, 0] == 2.0
        assert torch.equal(averaged["frozen"], weights["frozen"]) and torch.equal(
            averaged["buffer"], weights["buffer"]
        )
        assert read.weights("raw")["w"][0, 0] == 1.0


def test_the_earlier_layout_with_duplicate_tensors_is_read(tmp_path):
    weights = {"w": torch.full((3, 2), 1.0), "frozen": torch.full((5,), 7.0)}
    averaged = {**weights, "w": torch.full((3, 2), 2.0)}
    directory.save(
        tmp_path / "step_1", step=1, config={}, weights=weights, averaged=averaged, state=None
    )
    content = manifest.read(tmp_path / "step_1")
    files.write_sealed(tmp_path / "step_1" / "manifest.json", {**content, "schema": 2})
    checkpoint, rejected = directory.newest_valid(tmp_path)
    assert not rejected and checkpoint.weights("averaged").keys() == weights.keys()
    assert (
        checkpoint.weights("averaged")["w"][0, 0] == 2.0
        and checkpoint.weights("raw")["w"][0, 0] == 1.0
    )
