"""Old checkpoints go and names are written anew, and at every moment something valid is there."""

import fcntl
import os

import pytest

from tests.checkpoints.test_directory import write
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core import folders


def test_pruning_keeps_the_newest_of_its_kind(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path / f"step_{step}", step)
    write(tmp_path / "epoch_0", 1)
    directory.prune(tmp_path, 2, "step_*")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_0", "step_2", "step_3"]
    directory.prune(tmp_path, 0, "step_*")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_0", "step_3"]


def test_pruning_counts_only_valid_checkpoints(tmp_path):
    for step in (1, 2, 3, 4, 5):
        write(tmp_path / f"step_{step}", step)
    for step in (3, 4):
        file = tmp_path / f"step_{step}" / "state.pt"
        file.write_bytes(file.read_bytes()[:-1])
    (tmp_path / "step_5" / "manifest.json").write_text('{"schema": 2, "st')
    assert directory.prune(tmp_path, 1, "step_*") == [tmp_path / "step_1"]
    assert directory.prune(tmp_path, 1, "step_*") == []
    write(tmp_path / "step_6", 6)
    assert [p.name for p in directory.prune(tmp_path, 1, "step_*")] == [
        "step_4",
        "step_3",
        "step_2",
    ]
    # of step_5 nobody can say how old it is
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_5", "step_6"]


@pytest.mark.parametrize("is_complete", [True, False])
def test_saving_under_an_existing_name_replaces_the_checkpoint(tmp_path, is_complete):
    write(tmp_path / "step_1", 1, value=1.0)
    if not is_complete:
        (tmp_path / "step_1" / "state.pt").unlink()
    assert write(tmp_path / "step_1", 1, value=5.0).weights("raw")["w"][0, 0] == 5.0
    assert directory.read(tmp_path / "step_1").weights("raw")["w"][0, 0] == 5.0
    assert [p.name for p in tmp_path.iterdir()] == ["step_1"]


def test_the_old_checkpoint_stays_valid_while_it_is_replaced(tmp_path, monkeypatch):
    write(tmp_path / "step_1", 1, value=1.0)
    rename = os.rename

    def stopped(source, target):
        if str(source).endswith(".part"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "step_1", 1, value=5.0)
    monkeypatch.undo()
    checkpoint, rejected = directory.newest_valid(tmp_path)
    assert checkpoint.weights("raw")["w"][0, 0] == 1.0 and not rejected
    write(tmp_path / "step_2", 2)
    directory.prune(tmp_path, 1, "step_*")
    assert [p.name for p in tmp_path.iterdir()] == ["step_2"]


def test_files_of_a_killed_writer_are_removed_and_those_of_a_live_writer_kept(tmp_path):
    for name in (".step_1.dead.part", ".step_1.alive.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    living = os.open(tmp_path / ".step_1.alive.part", os.O_RDONLY)
    fcntl.flock(living, fcntl.LOCK_EX)
    write(tmp_path / "step_2", 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".step_1.alive.part", "step_2"]
    os.close(living)
    write(tmp_path / "step_3", 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_2", "step_3"]


def test_a_writer_locks_its_folder_against_other_processes(tmp_path):
    with folders.staged(tmp_path / "step_1") as staging:
        (staging / "x").write_text("x")
        assert folders.remove_leftovers(tmp_path) == []
    assert (tmp_path / "step_1" / "x").read_text() == "x"
