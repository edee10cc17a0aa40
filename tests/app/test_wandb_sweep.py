"""A sweep with logger=wandb: every job is a run with its configuration, samples and results."""

import os
import subprocess
import sys

import pytest

from tests.app.runs import CONF, SHAPES, SMALLEST
from tests.wandb_file import recorded_below
from tinyflux_pl.core import metric_names as names

SMALL = (
    *(*SMALLEST, *SHAPES, "debug=fast", "hardware.threads=1", "steps=4", "preflight=false"),
    *("data.evaluation_prompts=2", "callbacks.preview.count=2", "callbacks.log_every_steps=2"),
    *("data.sources.shapes.train.count=16", "callbacks.preview.every_steps=2"),
)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """The runs of `train.py --multirun model=tiny experts=none,lune_sol seed=0,1`, by name."""
    root = tmp_path_factory.mktemp("sweep")
    swept = ("model=tiny", "experts=none,lune_sol", "seed=0,1", "logger=wandb")
    line = [sys.executable, "train.py", "--multirun", *swept, *SMALL, f"paths.root={root}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("WANDB_RUN_ID", None)
    ended = subprocess.run(
        line, cwd=CONF.parent, capture_output=True, text=True, env=environment, timeout=600
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    (folder,) = (root / "outputs").iterdir()
    runs = recorded_below(root)
    return folder.name, {run.name: run for run in runs}, len(runs)


def test_four_jobs_are_four_runs_of_one_group_named_by_swept_keys(jobs):
    sweep, runs, count = jobs
    assert count == 4
    assert set(runs) == {f"experts={e},seed={s}" for e in ("none", "lune_sol") for s in (0, 1)}
    assert {run.group for run in runs.values()} == {sweep}
    assert len({run.id for run in runs.values()}) == 4
    assert {run.job_type for run in runs.values()} == {"train"}
    assert runs["experts=none,seed=0"].tags == ["shapes", "no experts"]
    assert runs["experts=lune_sol,seed=0"].tags == ["shapes", "lune", "sol"]


def test_every_run_logs_its_configuration_curves_and_results(jobs):
    _, runs, _ = jobs
    for name, run in runs.items():
        assert f"seed={run.config['seed']}" in name
        assert ("experts/lune/weight" in run.config) == ("lune" in name)
        assert run.config["provenance/parameters"] == run.summary["results/parameters"]
        assert [step for step, _ in run.curve("train/loss")] == [2, 4]
        assert [step for step, _ in run.curve("preview/samples")] == [2, 4]
        assert (run.exit_code, run.summary["run/state"]) == (0, "finished")
        assert run.summary["results/steps"] == 4
        entries = {names.find(key) for key in run.logged}
        assert (names.UNWEIGHTED in entries) == ("lune" in name) and None not in entries
    curves = [run.curve("train/loss") for run in runs.values()]
    assert all(curves.count(curve) == 1 for curve in curves)
