"""Preflight refusals: disk space, permissions, damaged or stale caches, memory; and ranks."""

import json
import os
import re
import weakref
from types import SimpleNamespace

import pytest
import torch

from tests.app.preflights import SMALL, first_run, only, tree
from tests.app.runs import configuration, run, settings
from tinyflux_pl.app.caches.sources import open_sources
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.memory import batch_sizes
from tinyflux_pl.app.preflight import cache_needs, disk_needs, dry_run_setup
from tinyflux_pl.app.preflight.preflight import Preflight
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.config import schema
from tinyflux_pl.core import errors
from tinyflux_pl.engine import peak_memory


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return first_run(tmp_path_factory.mktemp("project"))


# disk


def test_insufficient_disk_space_is_refused_before_extraction(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_needs, "free_space", lambda _: (300_000, None))
    with pytest.raises(errors.DiskFull) as caught:
        run("train", tmp_path, *SMALL, "run=x", "preflight=true")
    assert (
        "caches" in caught.value.what
        and "checkpoints" in caught.value.what
        and "293.0 KiB" in caught.value.what
    )
    assert "paths.root" in caught.value.cure and not (tmp_path / "cache").exists()


def test_insufficient_inodes_are_refused(tmp_path, monkeypatch):
    assert disk_needs.free_space(tmp_path)[0] > 2**20
    monkeypatch.setattr(disk_needs, "free_space", lambda _: (2**40, 3))
    with pytest.raises(errors.DiskFull) as caught:
        run("train", tmp_path, *SMALL, "run=x", "preflight=true")
    assert "space for 3 more" in caught.value.what


def test_predicted_disk_use_equals_the_bytes_written(root):
    config = configuration("train", root, *SMALL, "experts=lune_sol", "preflight=false")
    parts = Parts.from_config(schema.read(config, "train"))
    (shapes,) = open_sources(parts)
    need, *experts = cache_needs.needs(shapes.train)
    assert need.rows == 0 and [(n.group, n.rows) for n in experts] == [("lune", 48), ("sol", 48)]
    (root / "cache" / "shapes" / "train" / "manifest.json").rename(root / "aside")
    try:
        foretold, *_ = cache_needs.needs(open_sources(parts)[0].train)
    finally:
        (root / "aside").rename(root / "cache" / "shapes" / "train" / "manifest.json")
    shards = list((root / "cache" / "shapes" / "train" / "encodings").glob("shard_*"))
    disk, *_ = disk_needs.cache_disk([foretold], cache_needs.sampled(parts, [shapes]))
    assert foretold.rows == 48 and disk.files == len(shards)
    assert disk.bytes == pytest.approx(sum(f.stat().st_size for f in shards), rel=0.05)
    checkpoint = root / "outputs" / "first" / "checkpoints" / "step_0000002"
    preflight = Preflight(parts, 0)
    written = next(n for n in preflight.writes if n.what == "checkpoints")
    assert written.files == 3 * disk_needs.CHECKPOINT_FILES
    real = sum(f.stat().st_size for f in checkpoint.iterdir())
    # two are kept, one is in flight
    assert real <= written.bytes / 3 and written.bytes / 3 - real < 2**21


def test_a_file_in_place_of_the_checkpoint_folder_is_refused(root):
    folder = root / "outputs" / "blocked"
    folder.mkdir(parents=True)
    (folder / "checkpoints").write_text("")
    with pytest.raises(errors.ConfigError, match=r"'blocked' holds .*: checkpoints") as caught:
        run("train", root, *SMALL, "run=blocked", "preflight=true")
    assert caught.value.where == str(folder) and "run=NAME" in caught.value.cure
    with pytest.raises(errors.NotWritable) as caught:  # a run that goes on where it is
        run("train", root, *SMALL, "run=blocked", "resume=auto", "preflight=true")
    assert caught.value.where.endswith("checkpoints") and "run=NAME" in caught.value.cure
    assert [path.name for path in folder.iterdir()] == ["checkpoints"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(errors.NotWritable):
        run("train", tmp_path, *SMALL, "run=x", "preflight=true")


def test_a_checkpoint_that_does_not_round_trip_stops_the_run(root, monkeypatch):
    real = directory.Checkpoint.weights

    def rotten(self, which="averaged"):
        tensors = real(self, which)
        next(iter(tensors.values())).view(torch.uint8).reshape(-1)[0] ^= 1
        return tensors

    monkeypatch.setattr(directory.Checkpoint, "weights", rotten)
    with pytest.raises(errors.CorruptCheckpoint):
        run("train", root, *SMALL, "run=rotten", "preflight=true")
    assert not (root / "outputs" / "rotten" / "checkpoints").exists()


# caches


def test_one_flipped_bit_of_a_cache_stops_the_run(root):
    shard = root / "cache" / "shapes" / "train" / "encodings" / "shard_00000.safetensors"
    content = shard.read_bytes()
    middle = len(content) // 2
    shard.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    try:
        with pytest.raises(errors.CorruptStore) as caught:
            run("train", root, *SMALL, "run=flipped", "preflight=false")
    finally:
        shard.write_bytes(content)
    assert shard.name in caught.value.what and "doctor" in caught.value.cure
    assert not (root / "outputs" / "flipped").exists()


def test_a_stale_cache_is_refused_even_if_other_groups_are_missing(root):
    before = tree(root)
    with pytest.raises(errors.StaleCache) as caught:
        only(root, "codec.fold=4", "model.patch_size=1", "experts=lune")
    assert "fold" in caught.value.what and "extract.py" in caught.value.cure
    assert tree(root) == before


# memory


def test_a_network_beyond_memory_is_never_built(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyflux_pl.app.preflight.preflight.available_bytes", lambda _: 100_000)
    with pytest.raises(errors.MemoryPlanError) as caught:
        run("train", tmp_path, *SMALL, "run=x", "preflight=false")
    assert "weights" in caught.value.what and "model=" in caught.value.cure
    assert not (tmp_path / "cache").exists()


def test_activations_beyond_memory_are_refused_with_the_keys_that_help(root, monkeypatch):
    monkeypatch.setattr(peak_memory, "available_bytes", lambda _: 3 * 2**20)
    with pytest.raises(errors.MemoryPlanError) as caught:
        run("train", root, *SMALL, "run=big", "hardware.batch_size=16", "preflight=true")
    assert "the stage 'step' needs" in caught.value.what and "activations" in caught.value.what
    assert "hardware.gradient_checkpointing=true" in caught.value.cure
    suggested = re.search(r"hardware.accumulation=(\d+)", caught.value.cure)
    assert suggested and 1 < int(suggested[1]) <= 16
    cured = (
        f"hardware.accumulation={suggested[1]}",
        "hardware.batch_size=16",
        "callbacks.preview.count=1",
    )
    assert only(root, "run=big", *cured) == 0


def test_an_out_of_memory_error_in_the_dry_run_is_reported_with_the_keys_that_help(
    root, monkeypatch
):
    from tinyflux_pl.objectives.flow import FlowObjective

    real = FlowObjective.loss

    def hungry(self, denoiser, batch, step):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(self, denoiser, batch, step)

    monkeypatch.setattr(FlowObjective, "loss", hungry)
    with pytest.raises(errors.MemoryPlanError) as caught:
        run("train", root, *SMALL, "run=hungry", "preflight=true")
    assert (
        "2.00 GiB" in caught.value.what
        and "hardware.gradient_checkpointing=true" in caught.value.cure
    )
    assert not (root / "outputs" / "hungry" / "checkpoints").exists()


def test_the_dry_run_copy_is_released_from_memory(root, monkeypatch):
    copies, build = [], dry_run_setup.build_trainable

    def watched(*args, **kwargs):
        copy = build(*args, **kwargs)
        copies.extend(weakref.ref(part) for part in (copy.denoiser, copy.average, copy.module))
        return copy

    monkeypatch.setattr(dry_run_setup, "build_trainable", watched)
    assert only(root, "run=x") == 0
    assert len(copies) == 3 and all(copy() is None for copy in copies)


def test_steps_that_the_dry_run_skips_are_not_taken_for_steps_of_the_run(root, caplog):
    assert only(root, "run=x", "optimizer=adamw", "optimizer.lr=1e20") == 0
    skipped = [line for line in caplog.messages if "was skipped" in line]
    assert skipped and all(line.startswith("in the dry run, ") for line in skipped)


# ranks


def test_only_rank_zero_runs_the_preflight(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    parts = Parts.from_config(settings("train", tmp_path, *SMALL, "preflight=true"))
    waiting = Preflight(parts, 0)
    assert waiting.sources is None and not waiting.prepared and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("hardware", "sizes"),
    [
        ({"batch_size": 32, "accumulation": 2, "devices": 2, "accelerator": "cpu"}, (16, 8, 2, 2)),
        (
            {"batch_size": 32, "accumulation": 1, "devices": [1, 3], "accelerator": "gpu"},
            (32, 16, 1, 2),
        ),
        (
            {"batch_size": 8, "accumulation": 1, "devices": "auto", "accelerator": "cpu"},
            (8, 8, 1, 1),
        ),
    ],
)
def test_the_predicted_batch_is_divided_among_the_ranks(hardware, sizes):
    batch = batch_sizes.sizes(SimpleNamespace(**hardware))
    assert (batch.micro_batch, batch.on_rank, batch.accumulation, batch.ranks) == sizes


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(errors.ConfigError) as caught:
        batch_sizes.sizes(
            SimpleNamespace(batch_size=9, accumulation=1, devices=2, accelerator="cpu")
        )
    assert "2 ranks" in caught.value.what


def test_preflight_does_not_alter_the_report_of_the_run(root):
    results = json.loads((root / "outputs" / "first" / "results.json").read_text())
    assert results["steps"] == 2 and not list((root / "outputs" / "first").rglob(".*.part"))
