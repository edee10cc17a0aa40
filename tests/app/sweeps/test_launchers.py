"""Sweeps of four jobs by every launcher: one cache for all, one table, no job starves another."""

import json
import os

import pytest

from tests.app.sweeps import sweeps
from tinyflux_pl.app.sweeps import launch

LAUNCHERS = {
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit": ("hydra/launcher=submitit_local",),
}


@pytest.mark.parametrize("launcher", LAUNCHERS.values(), ids=LAUNCHERS)
def test_four_jobs_share_one_cache_and_one_results_table(tmp_path, launcher):
    completed = sweeps.run(
        tmp_path, "-m", "seed=0,1,2,3", "optimized_metric=validation_loss", *launcher
    )
    assert completed.returncode == 0, completed.stderr[-3000:]
    rows = sweeps.table(tmp_path)
    assert [(row["number"], row["state"]) for row in rows] == [
        (str(i), "finished") for i in range(4)
    ]
    for number, row in enumerate(rows):
        results = json.loads((sweeps.folder(tmp_path) / str(number) / "results.json").read_text())
        assert float(row["validation_loss"]) == results["validation_loss"]
        assert float(row["optimized_metric"]) == results["validation_loss"]
        assert f"seed={number}" in row["overrides"].split() and float(row["seconds"]) > 0
    stores = list((tmp_path / "cache").glob("*/*/manifest.json"))
    assert len(stores) == 2, "training and validation of one source"
    logs = sweeps.folder(tmp_path).glob(".submitit/*/*_log.err")
    printed = completed.stderr + "".join(log.read_text() for log in logs)
    assert printed.count("shapes/train: encode:   0%") == 1, "one job encodes, the others read"
    assert "sweep.csv" in completed.stdout


def test_local_submitit_jobs_share_the_threads(monkeypatch, tmp_path):
    for name in launch.THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    local = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"}
    with launch._environment(local, 3, tmp_path):
        assert os.environ["OMP_NUM_THREADS"] == "2"
        assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(launch.PROJECT)
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with launch._environment(local, 3, tmp_path):
        assert os.environ["OMP_NUM_THREADS"] == "5", "the user's own number stays"


def test_jobs_with_consecutive_numbers_are_launched_together():
    jobs = {3: ["c"], 0: ["a"], 1: ["b"]}
    assert launch._consecutive(jobs) == [(0, [["a"], ["b"]]), (3, [["c"]])]
