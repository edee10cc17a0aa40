"""A run that would fail later is stopped before it begins; one that goes is told what it takes, and not changed."""

import json
import os
import random
import re
import weakref

import numpy as np
import pytest
import torch

from tests.app.runs import configuration, photographs, run
from tinyflux_pl.app import cache_needs, dataset_survey, disk_needs, rehearsing
from tinyflux_pl.app import run as recipes
from tinyflux_pl.app.learner import Learner
from tinyflux_pl.app.parts import Parts
from tinyflux_pl.app.preflight import Preflight
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.round_trip import difference
from tinyflux_pl.core import errors
from tinyflux_pl.engine import peak_memory
from tinyflux_pl.training.rehearsed_fit import generators_kept

SMALL = (
    "model.hidden_size=16",
    "model.num_attention_heads=1",
    "model.attention_head_dim=16",
    "model.axes_dims_rope=[4,6,6]",
    "model.num_double_layers=1",
    "model.num_single_layers=1",
    "text.width=16",
    "hardware.precision=32-true",
    "data.evaluation_prompts=0",
    "data.shard_size=64",
)


def tree(root):
    return {p.relative_to(root): p.read_bytes() if p.is_file() else None for p in sorted(root.rglob("*"))}


def only(root, *overrides):
    """As the command line does it, Hydra's folder with its empty log included."""
    config = configuration("train", root, *SMALL, "preflight=only", *overrides)
    folder = root / "outputs" / config["run"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.log").touch()
    return recipes.train(config)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """With complete caches, and a run of two steps."""
    folder = tmp_path_factory.mktemp("project")
    run("train", folder, *SMALL, "run=first", "steps=2", "preflight=true")
    return folder


# what it says


def said(capsys):
    return re.sub(r"[\s│┃]+", " ", capsys.readouterr().out)


def test_alone_it_says_what_would_be_made_and_leaves_nothing(tmp_path, capsys):
    assert only(tmp_path, "run=x") == 0
    told = said(capsys)
    assert list(tmp_path.iterdir()) == []
    assert "shapes/train 48 records, nothing wrong 1:1 48 of 32 to 63 px, 0% cropped" in told
    assert all(f" {stage} " in told for stage in ("step", "validation", "preview", "save"))
    assert told.count(" predicted, ") == 4 and "rehearsed with a few samples" in told
    assert "8 of 8; 1.3 epochs in all" in told and "8 = 8 samples x 1 accumulated x 1 rank" in told
    assert "to be written: cache" in told and "images a second" in told


def test_alone_over_caches_that_are_there_it_uses_them_and_changes_none(root, capsys):
    before = tree(root)
    assert only(root, "run=x", "hardware.accumulation=2") == 0
    told = said(capsys)
    assert tree(root) == before
    assert "few samples" not in told and "as found when their cache was made" in told
    assert "8 = 4 samples x 2 accumulated x 1 rank" in told


def test_a_resumed_run_counts_the_steps_that_are_left(root, capsys):
    assert only(root, "run=first", "resume=auto", "steps=8", "schedule.total_steps=2") == 0
    assert "6 of 8; 1.3 epochs in all" in said(capsys)


def test_false_says_nothing_but_still_judges(root, capsys, monkeypatch):
    run("train", root, *SMALL, "run=quiet", "steps=1", "preflight=false")
    assert "predicted" not in said(capsys)
    monkeypatch.setattr(disk_needs, "room", lambda _: (1000, None))
    with pytest.raises(errors.DiskFull):
        run("train", root, *SMALL, "run=full", "steps=1", "preflight=false")


def test_another_word_is_refused(tmp_path):
    with pytest.raises(errors.ConfigError) as caught:
        run("train", tmp_path, *SMALL, "preflight=maybe")
    assert caught.value.cure == "true, only, or false"


# that it changes nothing


def test_a_run_with_it_ends_with_the_same_bits_as_one_without(root):
    ends = {}
    for asked in ("true", "false"):
        name = f"bits_{asked}"
        run("train", root, *SMALL, f"run={name}", "steps=4", f"preflight={asked}")
        checkpoint = directory.read(root / "outputs" / name / "checkpoints" / "step_0000004")
        with open(root / "outputs" / name / "csv" / "metrics.csv") as rows:
            kept = [i for i, name in enumerate(rows.readline().split(",")) if "second" not in name]
            logged = [[line.strip().split(",")[i] for i in kept] for line in rows]
        ends[asked] = (checkpoint.weights("raw"), checkpoint.weights("averaged"), checkpoint.state(), logged)
    (raw, averaged, state, logged), other = ends["true"], ends["false"]
    assert all(torch.equal(raw[k], other[0][k]) for k in raw)
    assert all(torch.equal(averaged[k], other[1][k]) for k in averaged)
    assert difference(state, other[2], "state") == ""
    assert logged == other[3] and len(logged) >= 4


def test_torch_and_numpy_draw_on_as_if_there_had_been_none(root):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    only(root, "run=x")
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


def test_whatever_is_drawn_in_a_rehearsal_is_put_back():
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    with pytest.raises(RuntimeError), generators_kept():
        drawn = float(torch.rand(())), np.random.rand(), random.random()
        raise RuntimeError("in the middle")
    assert drawn == (float(torch.rand(())), np.random.rand(), random.random())


# data


def test_everything_that_is_wrong_with_a_folder_is_told_together(tmp_path, capsys):
    photos = photographs(tmp_path / "photos", ("coffee", "rocket", "coins", "camera"), side=32)
    whole = (photos / "camera.jpg").read_bytes()
    (photos / "camera.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (photos / "page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (photos / "rocket.txt").unlink()
    (photos / "copy.png").write_bytes((photos / "coffee.png").read_bytes())
    (photos / "copy.txt").write_text("something else")
    chosen = ("data=folder", f"data.root='{photos}'", "data.image_size=16", "data.validation_fraction=0.3")
    root = tmp_path / "project"
    root.mkdir()
    with pytest.raises(errors.DataError):
        only(root, *chosen)
    told = said(capsys)
    assert list(root.iterdir()) == []
    assert re.search(r"unreadable \d: .*page\.jpg: a web page", told) and "camera.jpg: truncated" in told
    assert "no caption 1: rocket.jpg" in told
    assert re.search(r"other caption 1: (copy|coffee)\.png = (copy|coffee)\.png", told)
    assert re.search(r"3:2 3 of 32 to 63 px, 33% cropped", told)
    assert only(root, *chosen, "data.skip_bad=true", "data.allow_missing_captions=true") == 0


def test_a_damaged_image_is_refused_by_name_before_the_cache_is_begun(tmp_path):
    photos = photographs(tmp_path / "photos", ("coffee", "rocket", "coins", "camera"), side=32)
    whole = (photos / "camera.jpg").read_bytes()
    (photos / "camera.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    chosen = (*SMALL, "data=folder", f"data.root='{photos}'", "data.image_size=16", "preflight=true")
    with pytest.raises(errors.ImageError) as caught:
        run("train", tmp_path, *chosen)
    assert "camera.jpg: truncated" in caught.value.what and "data.skip_bad=true" in caught.value.cure
    assert not list(tmp_path.rglob("manifest.json"))


def test_what_was_found_is_kept_with_the_cache_and_only_for_these_records(root, monkeypatch):
    config = configuration("train", root, *SMALL)
    cache = root / "cache" / "shapes" / "train"
    records, _ = dataset_survey.records_of(config["data"]["sources"]["shapes"])
    known = dataset_survey.survey("shapes", "train", records["train"], (32, 32), cache)
    assert known.kept and known.audit.total == 48
    smaller = configuration("train", root, "data.image_size=16")
    other, _ = dataset_survey.records_of(smaller["data"]["sources"]["shapes"])
    assert not dataset_survey.survey("shapes", "train", other["train"], (16, 16), cache).kept
    kept = cache / dataset_survey.KEPT
    content = kept.read_text()
    kept.write_text(content.replace('"total": 48', '"total": 49'))
    assert not dataset_survey.survey("shapes", "train", records["train"], (32, 32), cache).kept
    kept.write_text(content)


# disk


def test_a_disk_without_room_is_told_before_any_time_is_spent(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_needs, "room", lambda _: (300_000, None))
    with pytest.raises(errors.DiskFull) as caught:
        run("train", tmp_path, *SMALL, "run=x", "preflight=true")
    assert "caches" in caught.value.what and "checkpoints" in caught.value.what and "293.0 KiB" in caught.value.what
    assert "paths.root" in caught.value.cure and not (tmp_path / "cache").exists()


def test_a_disk_without_room_for_more_files_is_told(tmp_path, monkeypatch):
    assert disk_needs.room(tmp_path)[0] > 2**20
    monkeypatch.setattr(disk_needs, "room", lambda _: (2**40, 3))
    with pytest.raises(errors.DiskFull) as caught:
        run("train", tmp_path, *SMALL, "run=x", "preflight=true")
    assert "room for 3 more" in caught.value.what


def test_what_is_foretold_of_the_disk_is_what_is_written(root):
    config = configuration("train", root, *SMALL, "experts=lune_sol", "preflight=false")
    parts = Parts.from_config(config)
    records = {s: dataset_survey.records_of(n)[0] for s, n in config["data"]["sources"].items()}["shapes"]
    need, *experts = cache_needs.needs(parts, "shapes", "train", records["train"])
    assert need.rows == 0 and [(n.group, n.rows) for n in experts] == [("lune", 48), ("sol", 48)]
    (root / "cache" / "shapes" / "train" / "manifest.json").rename(root / "aside")
    try:
        foretold, *_ = cache_needs.needs(parts, "shapes", "train", records["train"])
    finally:
        (root / "aside").rename(root / "cache" / "shapes" / "train" / "manifest.json")
    shards = list((root / "cache" / "shapes" / "train" / "encodings").glob("shard_*"))
    disk, *_ = disk_needs.cache_disk([foretold], cache_needs.samples(parts, {"shapes": records}))
    assert foretold.rows == 48 and disk.files == len(shards)
    assert disk.bytes == pytest.approx(sum(f.stat().st_size for f in shards), rel=0.05)
    checkpoint = root / "outputs" / "first" / "checkpoints" / "step_0000002"
    preflight = Preflight(parts, 0)
    written = next(n for n in preflight.writes if n.what == "checkpoints")
    assert written.files == 3 * disk_needs.CHECKPOINT_FILES
    real = sum(f.stat().st_size for f in checkpoint.iterdir())
    assert real <= written.bytes / 3 and written.bytes / 3 - real < 2**21  # two are kept, one is in flight


def test_what_lies_in_the_way_of_the_checkpoints_is_told(root):
    folder = root / "outputs" / "blocked"
    folder.mkdir(parents=True)
    (folder / "checkpoints").write_text("")
    with pytest.raises(errors.NotWritable) as caught:
        run("train", root, *SMALL, "run=blocked", "preflight=true")
    assert caught.value.where.endswith("checkpoints") and "run=NAME" in caught.value.cure


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_this_user_may_not_write_to_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(errors.NotWritable):
        run("train", tmp_path, *SMALL, "run=x", "preflight=true")


def test_a_checkpoint_that_comes_back_otherwise_stops_the_run(root, monkeypatch):
    real = directory.Checkpoint.weights

    def rotten(self, which="averaged"):
        found = real(self, which)
        next(iter(found.values())).view(torch.uint8).reshape(-1)[0] ^= 1
        return found

    monkeypatch.setattr(directory.Checkpoint, "weights", rotten)
    with pytest.raises(errors.CorruptCheckpoint):
        run("train", root, *SMALL, "run=rotten", "preflight=true")
    assert not (root / "outputs" / "rotten" / "checkpoints").exists()


# caches


def test_one_flipped_bit_of_a_cache_stops_the_run(root):
    shard = root / "cache" / "shapes" / "train" / "encodings" / "shard_00000.safetensors"
    content = shard.read_bytes()
    place = len(content) // 2
    shard.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    try:
        with pytest.raises(errors.CorruptStore) as caught:
            run("train", root, *SMALL, "run=flipped", "preflight=false")
    finally:
        shard.write_bytes(content)
    assert shard.name in caught.value.what and "doctor" in caught.value.cure
    assert not (root / "outputs" / "flipped").exists()


def test_a_stale_cache_is_told_alone_too_although_something_else_is_to_be_made(root):
    before = tree(root)
    with pytest.raises(errors.StaleCache) as caught:
        only(root, "codec.fold=4", "model.patch_size=1", "experts=lune")
    assert "fold" in caught.value.what and "extract.py" in caught.value.cure
    assert tree(root) == before


# memory


def test_a_network_that_memory_cannot_hold_is_never_built(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyflux_pl.app.preflight.available_bytes", lambda _: 100_000)
    with pytest.raises(errors.MemoryPlanError) as caught:
        run("train", tmp_path, *SMALL, "run=x", "preflight=false")
    assert "weights" in caught.value.what and "model=" in caught.value.cure
    assert not (tmp_path / "cache").exists()


def test_activations_that_do_not_fit_are_told_with_the_keys_that_help(root, monkeypatch):
    monkeypatch.setattr(peak_memory, "available_bytes", lambda _: 3 * 2**20)
    with pytest.raises(errors.MemoryPlanError) as caught:
        run("train", root, *SMALL, "run=big", "hardware.batch_size=16", "preflight=true")
    assert "the stage 'step' needs" in caught.value.what and "activations" in caught.value.what
    assert "hardware.gradient_checkpointing=true" in caught.value.cure
    found = re.search(r"hardware.accumulation=(\d+)", caught.value.cure)
    assert found and 1 < int(found[1]) <= 16
    cured = (f"hardware.accumulation={found[1]}", "hardware.batch_size=16", "callbacks.preview.count=1")
    assert only(root, "run=big", *cured) == 0


def test_memory_that_runs_out_all_the_same_is_told_likewise(root, monkeypatch):
    from tinyflux_pl.objectives.flow import FlowObjective

    real = FlowObjective.loss

    def hungry(self, denoiser, batch, step):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(self, denoiser, batch, step)

    monkeypatch.setattr(FlowObjective, "loss", hungry)
    with pytest.raises(errors.MemoryPlanError) as caught:
        run("train", root, *SMALL, "run=hungry", "preflight=true")
    assert "2.00 GiB" in caught.value.what and "hardware.gradient_checkpointing=true" in caught.value.cure
    assert not (root / "outputs" / "hungry" / "checkpoints").exists()


def test_nothing_of_the_copy_is_left_in_memory(root, monkeypatch):
    copies, build = [], Learner.of.__func__

    def watched(cls, *args, **kwargs):
        learner = build(cls, *args, **kwargs)
        copies.extend(weakref.ref(part) for part in (learner.denoiser, learner.average, learner.module))
        return learner

    monkeypatch.setattr(Learner, "of", classmethod(watched))
    assert only(root, "run=x") == 0
    assert len(copies) == 3 and all(copy() is None for copy in copies)


# ranks


def test_ranks_but_the_first_look_at_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    parts = Parts.from_config(configuration("train", tmp_path, *SMALL, "preflight=true"))
    waiting = Preflight(parts, 0)
    assert waiting.records is None and waiting.sources is None and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("hardware", "sizes"),
    [
        ({"batch_size": 32, "accumulation": 2, "devices": 2, "accelerator": "cpu"}, (16, 8, 2, 2)),
        ({"batch_size": 32, "accumulation": 1, "devices": [1, 3], "accelerator": "gpu"}, (32, 16, 1, 2)),
        ({"batch_size": 8, "accumulation": 1, "devices": "auto", "accelerator": "cpu"}, (8, 8, 1, 1)),
    ],
)
def test_the_batch_is_divided_among_the_ranks(hardware, sizes):
    found = rehearsing.sizes(hardware)
    assert (found.micro_batch, found.on_rank, found.accumulation, found.ranks) == sizes


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(errors.ConfigError) as caught:
        rehearsing.sizes({"batch_size": 9, "accumulation": 1, "devices": 2, "accelerator": "cpu"})
    assert "2 ranks" in caught.value.what


def test_the_report_of_a_run_is_unharmed_by_its_preflight(root):
    results = json.loads((root / "outputs" / "first" / "results.json").read_text())
    assert results["steps"] == 2 and not list((root / "outputs" / "first").rglob(".*.part"))
