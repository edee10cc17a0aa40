"""The preflight stops a run that would fail later, and does not change one that passes."""

import random
import re

import numpy as np
import pytest
import torch

from tests.app.preflights import SMALL, first_run, only, tree
from tests.app.runs import configuration, photographs, run, settings
from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.preflight import dataset_survey, disk_needs
from tinyflux_pl.app.preflight.preflight import Preflight
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.round_trip import difference
from tinyflux_pl.core import errors
from tinyflux_pl.core.metric_names import is_measured
from tinyflux_pl.text.hashed_words import HashedWords
from tinyflux_pl.training.dry_run_fit import preserved_generators


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return first_run(tmp_path_factory.mktemp("project"))


# what it says


def printed(capsys):
    return re.sub(r"[\s│┃]+", " ", capsys.readouterr().out)


def test_preflight_only_reports_planned_work_and_leaves_no_files(tmp_path, capsys):
    assert only(tmp_path, "run=x") == 0
    output = printed(capsys)
    assert list(tmp_path.iterdir()) == []
    assert (
        "shapes/train 48 records, nothing wrong masks 48 1:1 48 of 32 to 63 px, 0% cropped"
        in output
    )
    assert all(f" {stage} " in output for stage in ("step", "validation", "preview", "save"))
    assert output.count(" predicted, ") == 4 and "dry run with a few samples" in output
    assert (
        "8 of 8; 1.3 epochs in all" in output and "8 = 8 samples x 1 accumulated x 1 rank" in output
    )
    assert "to be written: cache" in output and "images a second" in output


def test_preflight_only_reads_existing_caches_unchanged(root, capsys):
    before = tree(root)
    assert only(root, "run=x", "hardware.accumulation=2") == 0
    output = printed(capsys)
    assert tree(root) == before
    assert "few samples" not in output and "as surveyed when the cache was made" in output
    assert "8 = 4 samples x 2 accumulated x 1 rank" in output


def test_preflight_of_a_resumed_run_counts_remaining_steps(root, capsys):
    assert only(root, "run=first", "resume=auto", "steps=8", "schedule.total_steps=2") == 0
    assert "6 of 8; 1.3 epochs in all" in printed(capsys)


def test_preflight_false_is_silent_but_still_checks(root, capsys, monkeypatch):
    run("train", root, *SMALL, "run=quiet", "steps=1", "preflight=false")
    assert "predicted" not in printed(capsys)
    monkeypatch.setattr(disk_needs, "free_space", lambda _: (1000, None))
    with pytest.raises(errors.DiskFull):
        run("train", root, *SMALL, "run=full", "steps=1", "preflight=false")


def test_an_invalid_preflight_value_is_refused(tmp_path):
    with pytest.raises(errors.ConfigError) as caught:
        run("train", tmp_path, *SMALL, "preflight=maybe")
    assert (
        caught.value.where == "preflight"
        and "true or false or one of only, plan" in caught.value.cure
    )


# that it changes nothing


def test_preflight_does_not_change_a_single_bit_of_the_run(root):
    ends = {}
    for overrides in ("true", "false"):
        name = f"bits_{overrides}"
        run("train", root, *SMALL, f"run={name}", "steps=4", f"preflight={overrides}")
        checkpoint = directory.read(root / "outputs" / name / "checkpoints" / "step_0000004")
        with open(root / "outputs" / name / "csv" / "metrics.csv") as rows:
            columns = rows.readline().strip().split(",")
            kept = [i for i, name in enumerate(columns) if not is_measured(name)]
            logged = [[line.strip().split(",")[i] for i in kept] for line in rows]
        ends[overrides] = (
            checkpoint.weights("raw"),
            checkpoint.weights("averaged"),
            checkpoint.state(),
            logged,
        )
    (raw, averaged, state, logged), other = ends["true"], ends["false"]
    assert all(torch.equal(raw[k], other[0][k]) for k in raw)
    assert all(torch.equal(averaged[k], other[1][k]) for k in averaged)
    assert difference(state, other[2], "state") == ""
    assert logged == other[3] and len(logged) >= 4


def test_preflight_leaves_torch_and_numpy_generators_unchanged(root):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    only(root, "run=x")
    assert (
        torch.equal(before[0], torch.get_rng_state())
        and (before[1] == np.random.get_state()[1]).all()
    )


def test_a_dry_run_leaves_the_global_generators_as_they_were():
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    with pytest.raises(RuntimeError), preserved_generators():
        drawn = float(torch.rand(())), np.random.rand(), random.random()
        raise RuntimeError("in the middle")
    assert drawn == (float(torch.rand(())), np.random.rand(), random.random())


def test_parameters_that_learn_are_those_that_the_method_trains(root):
    def learned(*words):
        config = settings("train", root, *SMALL, "preflight=true", *words)
        return Preflight(Parts.from_config(config), 0).parameters

    assert 0 < learned("method.frozen=[net.single_blocks]") < learned()


# data


def test_all_faults_of_a_folder_are_reported_together(tmp_path, capsys):
    photos = photographs(tmp_path / "photos", ("coffee", "rocket", "coins", "camera"), side=32)
    original = (photos / "camera.jpg").read_bytes()
    (photos / "camera.jpg").write_bytes(original[: len(original) * 2 // 3])
    (photos / "page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (photos / "rocket.txt").unlink()
    (photos / "copy.png").write_bytes((photos / "coffee.png").read_bytes())
    (photos / "copy.txt").write_text("something else")
    chosen = (
        "data=folder",
        f"data.root='{photos}'",
        "data.image_size=16",
        "data.validation_fraction=0.3",
    )
    root = tmp_path / "project"
    root.mkdir()
    with pytest.raises(errors.DataError):
        only(root, *chosen)
    output = printed(capsys)
    assert list(root.iterdir()) == []
    assert (
        re.search(r"unreadable \d: .*page\.jpg: a web page", output)
        and "camera.jpg: truncated" in output
    )
    assert "no caption 1: rocket.jpg" in output
    assert re.search(r"other caption 1: (copy|coffee)\.png = (copy|coffee)\.png", output)
    assert re.search(r"3:2 3 of 32 to 63 px, 33% cropped", output)
    assert only(root, *chosen, "data.skip_bad=true", "data.allow_missing_captions=true") == 0


def test_a_damaged_image_is_refused_by_name_before_extraction(tmp_path):
    photos = photographs(tmp_path / "photos", ("coffee", "rocket", "coins", "camera"), side=32)
    original = (photos / "camera.jpg").read_bytes()
    (photos / "camera.jpg").write_bytes(original[: len(original) * 2 // 3])
    chosen = (
        *SMALL,
        "data=folder",
        f"data.root='{photos}'",
        "data.image_size=16",
        "preflight=true",
    )
    with pytest.raises(errors.ImageError) as caught:
        run("train", tmp_path, *chosen)
    assert (
        "camera.jpg: truncated" in caught.value.what and "data.skip_bad=true" in caught.value.cure
    )
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_dataset_survey_is_stored_with_the_cache_of_its_records(root, monkeypatch):
    config = configuration("train", root, *SMALL)
    cache = root / "cache" / "shapes" / "train"
    records, _ = dataset_survey.records_of(config["data"]["sources"]["shapes"])
    text = Parts.from_config(settings("train", root, *SMALL)).text

    def survey(of, frame, encoder=text):
        return dataset_survey.survey("shapes", "train", of["train"], frame, cache, encoder)

    stored_survey = survey(records, (32, 32))
    assert stored_survey.stored and stored_survey.audit.total == 48
    assert not survey(records, (32, 32), HashedWords(width=16, length=5)).stored, (
        "it may cut captions"
    )
    smaller = configuration("train", root, "data.image_size=16")
    other, _ = dataset_survey.records_of(smaller["data"]["sources"]["shapes"])
    assert not survey(other, (16, 16)).stored
    kept = cache / dataset_survey.AUDIT_FILE
    content = kept.read_text()
    kept.write_text(content.replace('"total": 48', '"total": 49'))
    assert not survey(records, (32, 32)).stored
    kept.write_text(content)
