"""Failing checkpoints and disks are reported in three lines, and files on disk stay intact."""

import json
import os
import resource
import shutil
from contextlib import contextmanager

import pytest
from PIL import Image

from tests.app.runs import SMALLEST, run
from tests.app.test_bad_input import entry, refused, shards
from tests.stores import shard_faults
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core import errors


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    run("train", root, *SMALLEST, "run=first", "steps=1")
    return root


def test_an_existing_run_name_is_refused_and_its_files_stay(trained):
    before = shards(trained)
    with refused(errors.ConfigError) as caught:
        run("train", trained, *SMALLEST, "run=first", "steps=2")
    assert "resume=auto" in caught.value.cure and "run=NAME" in caught.value.cure
    assert shards(trained) == before


def test_train_py_refuses_an_existing_run_without_traceback(trained):
    before = shards(trained / "outputs" / "first")
    completed = entry("train", "run=first", f"paths.root={trained}", "seed=5")
    assert (
        completed.returncode == 2
        and "already has checkpoints" in completed.stderr
        and "Traceback" not in completed.stderr
    )
    after = shards(trained / "outputs" / "first")
    assert {p: c for p, c in after.items() if p in before} == before


def test_a_checkpoint_of_another_shape_is_refused_with_its_keys(trained, tmp_path):
    checkpoint = directory.read(trained / "outputs" / "first" / "checkpoints" / "step_0000001")
    weights = checkpoint.weights("raw")
    weights["net.img_in.weight"] = weights["net.img_in.weight"][:, :-1].contiguous()
    weights["net.surplus"] = weights.pop("net.img_in.bias")
    saved = dict(step=1, config=checkpoint.config, weights=weights, averaged=None, state=None)
    directory.save(tmp_path / "other", **saved)
    with refused(errors.CheckpointMismatch) as caught:
        run("generate", tmp_path, f"checkpoint='{tmp_path}/other'", "prompt=x")
    for key in (
        "missing: net.img_in.bias",
        "unexpected: net.surplus",
        "net.img_in.weight (16, 47) for (16, 48)",
    ):
        assert key in caught.value.what


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (("checkpoint='{root}/outputs/second'", "prompt=x"), "no such folder"),
        (("checkpoint='{root}/outputs/first'",), "prompt"),
        (("checkpoint='{root}/outputs/first'", "prompt=x", "height=33"), "such as height=32"),
        (("checkpoint='{root}/outputs/first'", "prompt=x", "n=0"), "at least 1"),
        (("checkpoint='{root}/outputs/first'", "prompt=x", "model=tiny"), "has its own model"),
        (("prompt=x",), "checkpoint=FOLDER"),
        (("checkpoint='{root}/outputs/first'", "prompt_file='{root}/none.txt'"), "no such file"),
    ],
)
def test_generate_refuses_invalid_requests(trained, tmp_path, line, says):
    with refused() as caught:
        run("generate", tmp_path, *(word.format(root=trained) for word in line))
    assert says in str(caught.value)


def test_a_truncated_checkpoint_is_skipped_for_the_previous_one(trained, tmp_path):
    root = shutil.copytree(trained, tmp_path / "copy")
    run("train", root, *SMALLEST, "run=first", "steps=2", "resume=auto")
    last = root / "outputs" / "first" / "checkpoints" / "step_0000002" / "ema.safetensors"
    last.write_bytes(last.read_bytes()[:-9])
    with refused(errors.CorruptCheckpoint) as caught:
        run("generate", root, f"checkpoint='{last.parent}'", "prompt=x")
    assert "ema.safetensors" in caught.value.what
    run("generate", root, f"checkpoint='{root}/outputs/first'", "prompt=x", "run=drawn")
    metadata = json.loads(
        Image.open(root / "outputs" / "drawn" / "image_0000.png").text["tinyflux_pl"]
    )
    assert metadata["step"] == 1


# a full disk


@contextmanager
def space_for(size):
    """No file may grow beyond `size` bytes: the kernel refuses the write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_cache_intact(tmp_path):
    run("extract", tmp_path, *SMALLEST)
    before = shards(tmp_path / "cache")
    with refused(errors.DiskFull), space_for(20_000):
        run("extract", tmp_path, *SMALLEST, "codec.fold=4", "rebuild=true")
    after = shards(tmp_path / "cache")
    assert {p: c for p, c in after.items() if p in before} == before
    run("train", tmp_path, *SMALLEST, "steps=1", "run=x")
    run("extract", tmp_path, *SMALLEST, "codec.fold=4", "rebuild=true")
    store = CacheStore.open(tmp_path / "cache" / "shapes" / "train")
    assert store.gather("latents", [0]).shape == (1, 48, 8, 8) and not shard_faults(store)


def test_a_rebuild_stopped_before_its_replacement_loses_no_row(tmp_path, monkeypatch):
    run("extract", tmp_path, *SMALLEST)
    before = {p.relative_to(tmp_path): c for p, c in shards(tmp_path / "cache").items()}
    rename = os.rename

    def stopped(source, target):
        if str(source).endswith(".new"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        run("extract", tmp_path, *SMALLEST, "codec.fold=4", "rebuild=true")
    monkeypatch.undo()
    monkeypatch.setattr(
        PixelFolding, "encode", lambda *_: pytest.fail("everything is encoded already")
    )
    run("extract", tmp_path, *SMALLEST)  # goes on with the old cache
    after = {p.relative_to(tmp_path): c for p, c in shards(tmp_path / "cache").items()}
    assert {p: c for p, c in after.items() if p in before} == before
    # takes over what the stopped one made
    run("extract", tmp_path, *SMALLEST, "codec.fold=4", "rebuild=true")
    store = CacheStore.open(tmp_path / "cache" / "shapes" / "train")
    assert store.gather("latents", [0]).shape == (1, 48, 8, 8) and not shard_faults(store)
    assert not list(tmp_path.rglob("*.new")) and not list(tmp_path.rglob("*.old"))


def test_insufficient_disk_space_is_reported_before_the_first_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1000, 990, 10))
    with refused(errors.DiskFull) as caught:
        run("extract", tmp_path, *SMALLEST)
    assert "MiB are free" in caught.value.what and not list(tmp_path.rglob("shard_*"))


@pytest.mark.parametrize("file", ["model.safetensors", "state.pt"])
def test_a_full_disk_leaves_the_checkpoints_intact(trained, tmp_path, file):
    root = shutil.copytree(trained, tmp_path / "copy")
    before = shards(root / "outputs" / "first" / "checkpoints")
    sizes = {p.name: len(c) for p, c in before.items()}
    size = sizes[file] - 1_000
    assert file == "model.safetensors" or sizes["model.safetensors"] < size, (
        "the state is what does not fit"
    )
    with refused(errors.DiskFull), space_for(size):
        run(
            "train",
            root,
            *SMALLEST,
            "run=first",
            "steps=2",
            "resume=auto",
            "logger=none",
            "callbacks.preview.every_steps=0",
        )
    assert shards(root / "outputs" / "first" / "checkpoints") == before
    run("train", root, *SMALLEST, "run=first", "steps=2", "resume=auto")
    assert directory.newest_valid(root / "outputs" / "first" / "checkpoints")[0].step == 2
