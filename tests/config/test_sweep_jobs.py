"""A sweep is checked completely before its first job: values, folders, compatibility."""

import pytest

from tests.app.runs import CONF
from tinyflux_pl.app import job_checks
from tinyflux_pl.app.cli import command_line
from tinyflux_pl.app.cli.check_line import check_line
from tinyflux_pl.config import sweep_jobs
from tinyflux_pl.core.errors import ConfigError, TinyFluxError


def refused(*argv):
    with pytest.raises(ConfigError) as caught:
        check_line(["-m", *argv], CONF, "train")
    return caught.value


def test_every_job_has_its_swept_values(tmp_path):
    line = check_line(
        ["-m", "seed=0,1", "model=tiny,small", f"paths.root={tmp_path}"], CONF, "train"
    )
    assert [(job["seed"], job["model"]["hidden_size"]) for job in line.jobs][::2] == [
        (0, 128),
        (1, 128),
    ]
    assert len(line.jobs) == 4 and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "where"),
    [
        (["steps=1,2,0"], "steps"),
        (["seed=0,1", "hardware.batch_size=8,16,many"], "hardware.batch_size"),
        (["model=tiny,small", "callbacks.ema.decay=0.9,2"], "callbacks.ema.decay"),
        (["seed=0,1", "hydra.sweep.subdir=same"], "hydra.sweep.subdir"),
        (
            ["seed=0,1", "hydra.sweep.subdir=${hydra.job.override_dirname}_" + "x" * 250],
            "hydra.sweep.subdir",
        ),
        # beyond the product that is judged
        (["seed=" + ",".join(map(str, range(70))), "steps=1,0"], "steps"),
    ],
)
def test_an_invalid_value_of_a_later_job_is_refused(tmp_path, line, where):
    assert refused(*line, f"paths.root={tmp_path}").where == where


def test_values_swept_by_a_file_are_checked(tmp_path):
    file = tmp_path / "conf" / "experiment" / "grid.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# @package _global_\nhydra: {sweeper: {params: {steps: '2,0', seed: '1,2'}}}\n"
    )
    words = ["--config-dir", str(tmp_path / "conf"), "experiment=grid"]
    assert refused(*words, f"paths.root={tmp_path}").where == "steps"
    jobs = check_line(["-m", *words, "steps=3", f"paths.root={tmp_path}"], CONF, "train").jobs
    assert [(job["steps"], job["seed"]) for job in jobs] == [(3, 1), (3, 2)], (
        "the line's replace it"
    )


def test_both_ends_of_an_interval_are_checked(tmp_path):
    line = ["hparams_search=optuna", "callbacks.ema.decay=interval(0.9,1.5)"]
    assert refused(*line, f"paths.root={tmp_path}").where == "callbacks.ema.decay"


@pytest.mark.parametrize(
    ("argv", "job", "swept"),
    [
        (["-m", "seed=0,1", "preflight=false"], ["seed=1", "preflight=False"], ["seed=1"]),
        (
            ["-m", "optimizer.lr=choice(1,2)", "+a=1"],
            ["optimizer.lr=1", "+a=1"],
            ["optimizer.lr=1"],
        ),
        # chosen by a sweeper's own parameters; in another process than that of the command line
        (["-m", "model=tiny"], ["model=tiny", "steps=7"], ["steps=7"]),
        (["folder"], ["model=tiny"], ["model=tiny"]),
    ],
)
def test_swept_keys_are_distinguished_from_keys_common_to_all_jobs(argv, job, swept):
    assert sweep_jobs.swept(job, argv) == swept


def test_folder_names_within_the_disk_limit_are_accepted(tmp_path):
    named = "hydra.sweep.subdir=${hydra.job.override_dirname}"
    assert len(check_line(["-m", "seed=0,1", named, "paths.root=."], CONF, "train").jobs) == 2


def test_jobs_with_equal_subfolders_in_distinct_folders_are_accepted():
    folders = ["hydra.sweep.dir=${seed}", "hydra.sweep.subdir=same"]
    assert len(check_line(["-m", "seed=0,1", *folders, "paths.root=."], CONF, "train").jobs) == 2


def test_checks_of_the_built_parts_run_for_every_job_and_name_it():
    jobs = check_line(["-m", "model.hidden_size=128,33"], CONF, "train").jobs
    with pytest.raises(TinyFluxError, match="job 1 of 0 to 1, none of which was started"):
        command_line._check_jobs("train", jobs)
    assert set(job_checks.CHECKS) == {"train", "extract", "generate"}
