"""The doctor lists every cache and checkpoint below a folder with its faults and repairs caches."""

import os
import shutil

import pytest

from tests.app.runs import SMALLEST, configuration
from tests.app.test_bad_input import entry
from tests.faults import caching
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.caches import doctor
from tinyflux_pl.core import interpreter
from tinyflux_pl.core.errors import CorruptStore, DataError

KINDS = {
    "folder/train": "cache",
    "folder/validation": "cache",
    "checkpoints/step_0000001": "checkpoint",
}


# a model's release, a web page's manifest, shards and keys of other programs
FOREIGN = (
    *("release/model.safetensors", "release/config.json", "page/manifest.json", "page/config.json"),
    *(
        "keys/keys.bin",
        "users/admins/group.json",
        "wds/train/shard_00001.tar",
        "wds/train/shard_last.json",
    ),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A project with a cache, a checkpoint and foreign files."""
    root = caching.make(tmp_path_factory.mktemp("my projects, [1]") / "world", pretrained=False)
    caching.extract(root, pretrained=False)
    small = [line for line in SMALLEST if not line.startswith("text.")]
    config = caching.config(root, *small, "run=x", "steps=1", task="train", pretrained=False)
    recipes.train(config | {"preflight": False} if "preflight" in config else config)
    for name in FOREIGN:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"{}")
    return root


@pytest.fixture
def root(world, tmp_path):
    return shutil.copytree(world, tmp_path / "world")


@pytest.fixture
def examined(tmp_path, capsys, monkeypatch):
    """Run the doctor on a folder: exit code, output, and state by artifact."""
    monkeypatch.setenv("COLUMNS", "400")  # no folded lines

    def run(folder, *overrides):
        capsys.readouterr()
        code = recipes.extract(
            configuration("extract", tmp_path / "elsewhere", f"doctor='{folder}'", *overrides)
        )
        output = capsys.readouterr().out
        rows = [
            [cell.strip() for cell in line.split("│")]
            for line in output.splitlines()
            if line.startswith("│")
        ]
        return code, output, {row[2].split("/")[-1]: row[5] for row in rows if row[1]}

    return run


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_intact_artifacts_pass_the_doctor(root, examined):
    kinds = {str(p.path.relative_to(root)): p.kind for p in doctor.find_artifacts([root])}
    assert {name.split("/", 1)[1].split("x/")[-1]: kind for name, kind in kinds.items()} == KINDS
    code, output, states = examined(root)
    assert code == 0 and "3 places, 0 damaged" in output
    assert states == dict.fromkeys(("train", "validation", "step_0000001"), "intact")
    assert examined(root, "repair=true")[0] == 0 and all((root / name).exists() for name in FOREIGN)


def test_every_fault_is_named_with_the_command_that_repairs_it(root, examined):
    train = root / "cache" / "folder" / "train"
    flip(train / "lune" / "shard_00001.safetensors")
    flip(train / "encodings" / "group.json")
    flip(root / "outputs" / "x" / "checkpoints" / "step_0000001" / "model.safetensors")
    (root / "cache" / "folder" / "validation" / "encodings" / "shard_00000.json").unlink()
    code, output, states = examined(root)
    assert code == 1 and "3 places, 3 damaged" in output
    assert "encodings/group.json: group.json changed after it was written" in states["train"]
    assert "lune/shard_00001.safetensors: its sha256 is not that of what was written" in output
    assert "model.safetensors" in states["step_0000001"]
    assert states["validation"] == "unfinished: 1 shard to be made"
    assert f"{train}: {interpreter.command('extract.py')} doctor={train} repair=true" in output


def test_repair_removes_damaged_cache_files_and_keeps_checkpoints(root, examined):
    intact = caching.content(root)
    flip(root / "cache" / "folder" / "train" / "sol" / "shard_00000.safetensors")
    assert examined(root, "repair=true")[0] == 0
    assert examined(root)[0] == 1, "unfinished until it is made again"
    caching.extract(root, pretrained=False)
    assert examined(root)[0] == 0 and caching.content(root) == intact
    flip(root / "outputs" / "x" / "checkpoints" / "step_0000001" / "ema.safetensors")
    assert examined(root, "repair=true")[0] == 1


@pytest.mark.parametrize("lost", ["manifest.json", "keys.bin"])
def test_a_store_that_lost_its_manifest_is_still_a_store(root, examined, lost):
    intact, train = caching.content(root), root / "cache" / "folder" / "train"
    (train / lost).unlink()
    code, _, states = examined(root)
    assert code == 1 and lost in states["train"]
    assert examined(root, "repair=true")[0] == 0
    shards = {p: p.stat().st_mtime_ns for p in train.rglob("shard_*")}
    caching.extract(root, pretrained=False)
    assert caching.content(root) == intact and {p: p.stat().st_mtime_ns for p in shards} == shards


@pytest.mark.parametrize("name", ["manifest.json", "encodings/group.json"])
def test_a_foreign_file_in_place_of_metadata_is_named_and_kept(root, examined, name):
    intact, train = caching.content(root), root / "cache" / "folder" / "train"
    (train / name).write_text('{"short_name": "page", "icons": []}')
    for options in ((), ("repair=true",)):
        code, output, states = examined(root, *options)
        assert (
            code == 1
            and f"{name}: another program's, and never removed: move it elsewhere" in output
        )
        assert f"{name.split('/')[-1]} is another program's" in states["train"]
        assert f"doctor={train}" not in output, "which would not mend it"
    with pytest.raises(CorruptStore, match="another program's") as caught:
        caching.extract(root, pretrained=False)
    assert "move that file elsewhere" in caught.value.cure
    assert "icons" in (train / name).read_text()
    (train / name).unlink()
    caching.extract(root, pretrained=False)
    assert caching.content(root) == intact and examined(root)[0] == 0


def test_a_checkpoint_that_lost_its_manifest_is_still_a_checkpoint(root, examined):
    (root / "outputs" / "x" / "checkpoints" / "step_0000001" / "manifest.json").unlink()
    code, _, states = examined(root)
    assert code == 1 and "manifest.json" in states["step_0000001"]


def test_files_of_a_stopped_rebuild_are_reported_as_such(root, examined):
    folder = root / "cache" / "folder"
    shutil.copytree(folder / "train", folder / "train.new")
    (folder / "train.new" / "lune" / "shard_00000.json").unlink()
    code, output, states = examined(root)
    assert code == 1 and states["train"] == "intact"
    assert states["train.new"].startswith("unfinished")
    assert "left by a rebuild that was stopped" in output


def test_doctor_true_examines_the_sources_and_the_root_folder(root, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    config = caching.config(root, "doctor=true", pretrained=False)
    assert recipes.extract(config) == 0 and "3 places, 0 damaged" in capsys.readouterr().out
    elsewhere = root.parent / "another disk"
    (root / "cache" / "folder").rename(elsewhere)
    config = caching.config(
        root, "doctor=true", f"data.sources.folder.cache='{elsewhere}'", pretrained=False
    )
    assert recipes.extract(config) == 0 and "3 places, 0 damaged" in capsys.readouterr().out


def test_an_empty_folder_passes_and_a_missing_one_is_refused(tmp_path, examined):
    code, output, _ = examined(tmp_path)
    assert code == 0 and "0 places" in output
    with pytest.raises(DataError, match="no such folder"):
        examined(tmp_path / "typo")


def test_doctor_accepts_a_folder_path_as_typed(world, tmp_path):
    process = entry("extract", f"doctor={world}", f"paths.root={tmp_path}")
    assert process.returncode == 0 and "3 places, 0 damaged" in process.stdout, process.stderr


def test_a_linked_cache_is_examined(root, tmp_path, capsys):
    """As on a cluster with caches and outputs on another disk; the chosen data is another."""
    project, disk = tmp_path / "project", tmp_path / "disk"
    project.mkdir(), disk.mkdir()
    for name in ("cache", "outputs"):
        (root / name).rename(disk / name)
        (project / name).symlink_to(disk / name)
    assert recipes.extract(configuration("extract", project, "doctor=true")) == 0
    assert "3 places, 0 damaged" in capsys.readouterr().out
    flip(disk / "cache" / "folder" / "train" / "lune" / "shard_00001.safetensors")
    flip(disk / "outputs" / "x" / "checkpoints" / "step_0000001" / "model.safetensors")
    assert recipes.extract(configuration("extract", project, "doctor=true")) == 1
    assert "3 places, 2 damaged" in capsys.readouterr().out


def test_an_unreadable_folder_does_not_pass_the_doctor(root, examined, monkeypatch):
    usual, closed = os.scandir, root / "cache" / "folder"

    def scandir(path="."):
        if os.path.realpath(path) == str(closed.resolve()):
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path)

    monkeypatch.setattr(os, "scandir", scandir)
    code, output, states = examined(root)
    assert (
        code == 1
        and states["folder"] == "cannot be read: Permission denied"
        and "make it readable" in output
    )
    assert states["step_0000001"] == "intact", "the others are examined all the same"
