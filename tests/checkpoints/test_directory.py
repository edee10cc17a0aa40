"""A checkpoint is complete or it is absent."""

import json

import pytest
import torch

from tinyflux_pl.checkpoints import directory, manifest
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CorruptCheckpoint, UntrustedFile


def write(path, step=1, value=0.0):
    weights = {"w": torch.full((3, 2), value), "b": torch.zeros(3)}
    averaged = {"w": torch.full((3, 2), value + 1), "b": torch.zeros(3)}
    state = {"step": step, "optimizer": {"state": {0: torch.ones(2)}}}
    return directory.save(
        path, step=step, config={"name": "x"}, weights=weights, averaged=averaged, state=state
    )


def test_round_trip_keeps_raw_and_averaged_weights_separate(tmp_path):
    write(tmp_path / "step_1", value=2.0)
    checkpoint = directory.read(tmp_path / "step_1")
    assert checkpoint.weights("raw")["w"][0, 0] == 2.0
    assert checkpoint.weights("averaged")["w"][0, 0] == 3.0
    assert checkpoint.state()["optimizer"]["state"][0].tolist() == [1.0, 1.0]
    assert checkpoint.step == 1 and checkpoint.config == {"name": "x"}


@pytest.mark.parametrize(
    "file", ["model.safetensors", "ema.safetensors", "state.pt", "config.json", "manifest.json"]
)
@pytest.mark.parametrize("fault", ["flip", "truncate", "remove"])
def test_a_damaged_file_is_detected_and_an_older_checkpoint_chosen(tmp_path, file, fault):
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
    checkpoint, rejected = directory.newest_valid(tmp_path)
    assert checkpoint.step == 1
    assert len(rejected) == 1 and "step_2" in rejected[0]


@pytest.mark.parametrize(
    "left", ["model.safetensors", "ema.safetensors", "state.pt", "manifest.json"]
)
def test_an_incomplete_checkpoint_is_rejected_by_name(tmp_path, left):
    write(tmp_path / "step_1", 1)
    write(tmp_path / "step_2", 2)
    for file in (tmp_path / "step_2").iterdir():
        if file.name != left:
            file.unlink()
    (tmp_path / "notes").mkdir()
    checkpoint, rejected = directory.newest_valid(tmp_path)
    assert checkpoint.step == 1 and len(rejected) == 1 and rejected[0].startswith("step_2: ")


def test_a_failed_write_leaves_no_files(tmp_path, monkeypatch):
    write(tmp_path / "step_1", 1)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(directory.torch, "save", fail)
    with pytest.raises(Exception, match="no space to write step_2"):
        write(tmp_path / "step_2", 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step_1"]
    assert directory.newest_valid(tmp_path)[0].step == 1


def test_a_truncated_manifest_is_rejected_by_name_and_older_checkpoints_load(tmp_path):
    write(tmp_path / "step_1", 1)
    for name, content in {
        "a": b"",
        "b": b"{",
        "c": b"[" * 9999,
        "d": b'{"step": NaN}',
        "e": b"\xff",
        "f": b"3",
    }.items():
        write(tmp_path / name, 2)
        (tmp_path / name / "manifest.json").write_bytes(content)
    assert [p.name for p in directory.list_steps(tmp_path)] == ["step_1"]
    checkpoint, rejected = directory.newest_valid(tmp_path)
    assert checkpoint.step == 1 and [line[:2] for line in rejected] == [
        "a:",
        "b:",
        "c:",
        "d:",
        "e:",
        "f:",
    ]
    with pytest.raises(CorruptCheckpoint, match=r"manifest\.json is missing, truncated or altered"):
        directory.read(tmp_path / "b")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["files"].update({"../stolen.json": m["files"]["config.json"]}),
        lambda m: m["files"].pop("model.safetensors"),
        lambda m: m.update(files=["model.safetensors", "config.json"]),
        lambda m: m.update(step="2"),
        lambda m: m.update(schema=1),
        lambda m: m.update(schema=4),
        lambda m: m.update(schema=[3]),
        lambda m: m["files"].update({"config.json": {"bytes": 1}}),
    ],
)
def test_a_forged_manifest_with_a_valid_seal_is_rejected(tmp_path, change):
    write(tmp_path / "run" / "step_1", 1)
    write(tmp_path / "run" / "step_2", 2)
    (tmp_path / "run" / "stolen.json").write_bytes(
        (tmp_path / "run" / "step_2" / "config.json").read_bytes()
    )
    forged = manifest.read(tmp_path / "run" / "step_2")
    change(forged)
    files.write_sealed(tmp_path / "run" / "step_2" / "manifest.json", forged)
    with pytest.raises(CorruptCheckpoint):
        directory.read(tmp_path / "run" / "step_2")
    assert directory.newest_valid(tmp_path / "run")[0].step == 1


def test_a_file_not_listed_in_the_manifest_is_not_read(tmp_path):
    saved = dict(step=1, config={}, weights={"w": torch.ones(1)}, averaged=None, state=None)
    checkpoint = directory.save(tmp_path / "step_1", **saved)
    files.write_tensors(tmp_path / "step_1" / "ema.safetensors", {"w": torch.zeros(1)})
    torch.save({"step": 1, "optimizer": {}}, tmp_path / "step_1" / "state.pt")
    for opened in (checkpoint, directory.read(tmp_path / "step_1")):
        assert opened.weights("averaged")["w"].item() == 1
        with pytest.raises(CorruptCheckpoint, match="no training state"):
            opened.state()


def test_a_file_that_holds_no_training_state_is_refused(tmp_path):
    weights = {"w": torch.zeros(1)}
    checkpoint = directory.save(
        tmp_path / "a", step=1, config={}, weights=weights, averaged=None, state={"step": 1}
    )
    with pytest.raises(CorruptCheckpoint, match="not a training state"):
        checkpoint.state()


def test_a_single_file_is_not_opened_as_a_checkpoint(tmp_path):
    (tmp_path / "step_1.ckpt").write_bytes(b"PK\x03\x04")
    with pytest.raises(UntrustedFile, match="not opened"):
        directory.read(tmp_path / "step_1.ckpt")


def test_the_error_for_a_file_of_a_checkpoint_names_its_folder(tmp_path):
    write(tmp_path / "step_1")
    with pytest.raises(UntrustedFile) as caught:
        directory.read(tmp_path / "step_1" / "model.safetensors")
    assert caught.value.cure == f"give the checkpoint's folder: {tmp_path / 'step_1'}"


def test_the_error_for_a_folder_that_does_not_exist_names_the_nearest(tmp_path):
    (tmp_path / "shapes").mkdir()
    with pytest.raises(CorruptCheckpoint, match="no such folder") as caught:
        directory.read(tmp_path / "shape")
    assert f"did you mean {tmp_path / 'shapes'}?" in caught.value.cure
    with pytest.raises(CorruptCheckpoint, match="no such folder") as caught:
        directory.read(tmp_path / "no" / "where")
    assert "did you mean" not in caught.value.cure


def test_the_manifest_lists_the_files_of_the_checkpoint(tmp_path):
    checkpoint = write(tmp_path / "step_1")
    content = json.loads((tmp_path / "step_1" / "manifest.json").read_text())
    assert (
        content.pop("seal")
        and content == checkpoint.manifest == directory.read(tmp_path / "step_1").manifest
    )
    assert sorted(content["files"]) == [
        "config.json",
        "ema.safetensors",
        "model.safetensors",
        "state.pt",
    ]


def test_the_error_for_a_folder_without_checkpoint_names_the_nearest_one(tmp_path):
    write(tmp_path / "checkpoints" / "step_1")
    with pytest.raises(CorruptCheckpoint, match="step_1"):
        directory.read(tmp_path)
