"""A checkpoint is whole or it is not there."""

import pytest
import torch

from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint


def write(path, step=1, value=0.0):
    weights = {"w": torch.full((3, 2), value), "b": torch.zeros(3)}
    averaged = {"w": torch.full((3, 2), value + 1), "b": torch.zeros(3)}
    state = {"step": step, "optimizer": {"state": {0: torch.ones(2)}}}
    return directory.save(path, step=step, config={"name": "x"}, weights=weights, averaged=averaged, state=state)


def test_round_trip_keeps_raw_and_averaged_apart(tmp_path):
    write(tmp_path / "step_1", value=2.0)
    found = directory.read(tmp_path / "step_1")
    assert found.weights("raw")["w"][0, 0] == 2.0
    assert found.weights("averaged")["w"][0, 0] == 3.0
    assert found.state()["optimizer"]["state"][0].tolist() == [1.0, 1.0]
    assert found.step == 1 and found.config == {"name": "x"}


@pytest.mark.parametrize("file", ["model.safetensors", "ema.safetensors", "state.pt", "config.json"])
@pytest.mark.parametrize("fault", ["flip", "truncate", "remove"])
def test_a_damaged_file_is_found_and_an_older_checkpoint_chosen(tmp_path, file, fault):
    write(tmp_path / "step_1", 1)
    write(tmp_path / "step_2", 2)
    target = tmp_path / "step_2" / file
    content = bytearray(target.read_bytes())
    if fault == "flip":
        content[len(content) // 2] ^= 1
        target.write_bytes(bytes(content))
    elif fault == "truncate":
        target.write_bytes(bytes(content[:-1]))
    else:
        target.unlink()
    with pytest.raises(CorruptCheckpoint, match=file):
        directory.read(tmp_path / "step_2")
    found, rejected = directory.newest_valid(tmp_path)
    assert found.step == 1
    assert len(rejected) == 1 and "step_2" in rejected[0]


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    write(tmp_path / "step_1", 1)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(directory.torch, "save", fail)
    with pytest.raises(Exception, match="no room to write step_2"):
        write(tmp_path / "step_2", 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step_1"]
    assert directory.newest_valid(tmp_path)[0].step == 1


def test_pruning_keeps_the_newest_of_its_kind(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path / f"step_{step}", step)
    write(tmp_path / "epoch_0", 1)
    directory.prune(tmp_path, 2, "step_*")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_0", "step_2", "step_3"]
    directory.prune(tmp_path, 0, "step_*")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_0", "step_3"]


def test_other_weights_are_refused_with_their_keys(tmp_path):
    module = torch.nn.Linear(2, 3)
    tensors = {"weight": torch.zeros(4, 2), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointMismatch) as error:
        directory.load_weights(module, tensors, "here")
    text = str(error.value)
    assert "1 missing: bias" in text and "1 unexpected: extra" in text
    assert "checkpoint (4, 2), network (3, 2)" in text


def test_a_folder_that_is_no_checkpoint_names_the_nearest_one(tmp_path):
    write(tmp_path / "checkpoints" / "step_1")
    with pytest.raises(CorruptCheckpoint, match="step_1"):
        directory.read(tmp_path)
