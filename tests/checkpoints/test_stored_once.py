"""What is frozen is stored once, in either layout the averages are a whole network."""

import torch

from tinyflux_pl.checkpoints import directory, manifest
from tinyflux_pl.core import files


def test_a_tensor_that_has_no_average_is_stored_once_and_the_averages_are_a_whole_network(tmp_path):
    weights = {
        "w": torch.full((3, 2), 1.0),
        "frozen": torch.full((1000,), 7.0),
        "buffer": torch.arange(3),
    }
    saved = dict(
        step=1, config={}, weights=weights, averaged={"w": torch.full((3, 2), 2.0)}, state=None
    )
    found = directory.save(tmp_path / "step_1", **saved)
    assert files.read_tensors(tmp_path / "step_1" / "ema.safetensors").keys() == {"w"}
    for read in (found, directory.read(tmp_path / "step_1")):
        averaged = read.weights("averaged")
        assert averaged.keys() == weights.keys() and averaged["w"][0, 0] == 2.0
        assert torch.equal(averaged["frozen"], weights["frozen"]) and torch.equal(
            averaged["buffer"], weights["buffer"]
        )
        assert read.weights("raw")["w"][0, 0] == 1.0


def test_the_layout_that_stored_them_twice_is_read(tmp_path):
    weights = {"w": torch.full((3, 2), 1.0), "frozen": torch.full((5,), 7.0)}
    averaged = {**weights, "w": torch.full((3, 2), 2.0)}
    directory.save(
        tmp_path / "step_1", step=1, config={}, weights=weights, averaged=averaged, state=None
    )
    told = manifest.read(tmp_path / "step_1")
    files.write_sealed(tmp_path / "step_1" / "manifest.json", {**told, "schema": 2})
    found, rejected = directory.newest_valid(tmp_path)
    assert not rejected and found.weights("averaged").keys() == weights.keys()
    assert found.weights("averaged")["w"][0, 0] == 2.0 and found.weights("raw")["w"][0, 0] == 1.0
