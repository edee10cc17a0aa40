"""A job that fails or is killed stops no other; the table and the exit code tell it."""

import os
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from tests.app.sweeps import sweeps
from tinyflux_pl.app.sweeps import launch, rows, table
from tinyflux_pl.app.sweeps.job import recorded
from tinyflux_pl.app.sweeps.rows import Row
from tinyflux_pl.core.errors import ConfigError, DiskFull, Interrupted, Pruned

HERE = f"{os.getpid()} on {os.uname().nodename}"


def test_later_jobs_run_after_a_failed_one_also_in_batches(tmp_path):
    """The folder of job 0 is one of another run, which only the job itself finds out."""
    taken = sweeps.folder(tmp_path) / "0" / "samples"
    taken.mkdir(parents=True)
    completed = sweeps.run(tmp_path, "-m", "seed=0,1", "hydra.sweeper.max_batch_size=1")
    assert completed.returncode == 2, completed.stderr[-3000:]
    states = [(row["state"], row["error"]) for row in sweeps.table(tmp_path)]
    assert [state for state, _ in states] == ["failed", "finished"]
    assert "holds files of no run" in states[0][1]
    assert (
        "1 of 2 jobs did not finish: 0" in completed.stderr and "Traceback" not in completed.stderr
    )


@pytest.mark.parametrize(
    ("end", "state", "code"),
    [
        (None, "finished", 0),
        (0.25, "finished", 0),
        (3, "failed", 3),
        (ConfigError("a wrong value", where="here"), "failed", 2),
        (ZeroDivisionError("a bug"), "failed", 1),
        (Interrupted(signal.SIGTERM), "interrupted", 143),
        (Pruned("validation_loss", 2.0, 4), "pruned", 0),
        (KeyboardInterrupt(), "interrupted", 1),
    ],
    ids=repr,
)
def test_every_way_a_job_ends_is_recorded_in_its_row(tmp_path, end, state, code):
    try:
        with recorded(tmp_path, 5, ["seed=1"], tmp_path / "5") as outcome:
            (running,) = rows.read(tmp_path)
            assert running.state == "running" and (tmp_path / "sweep.csv").exists()
            if isinstance(end, BaseException):
                raise end
            outcome.value = end
    except BaseException as error:
        assert error is end
    (row,) = rows.read(tmp_path)
    assert (row.number, row.state, row.exit_code) == (5, state, code)
    assert row.seconds is not None
    assert row.value == {"finished": end, "pruned": 2.0}.get(state)


def test_a_job_succeeds_although_its_row_cannot_be_written(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise DiskFull("no space to write sweep.csv")

    monkeypatch.setattr(table, "write", full)
    with recorded(tmp_path, 0, ["seed=0"], tmp_path / "0") as outcome:
        outcome.value = 0.5
    assert "could not be written: no space to write" in capsys.readouterr().err


def test_a_job_whose_process_died_is_recorded_as_interrupted(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    host = os.uname().nodename
    Row(0, ["seed=0"], "0", f"{gone.pid} on {host}").write(tmp_path)
    Row(1, ["seed=1"], "1", HERE).write(tmp_path)
    Row(2, ["seed=2"], "2", "1 on another-machine").write(tmp_path)
    assert [row.state for row in table.write(tmp_path)] == ["interrupted", "running", "running"]


def test_infinite_and_nan_results_round_trip(tmp_path):
    row = Row.begun(0, [], "0").ended(
        "finished", value=float("inf"), results={"loss": float("nan")}
    )
    row.write(tmp_path)
    (again,) = rows.read(tmp_path)
    assert again.value == float("inf") and again.results["loss"] != again.results["loss"]


def test_jobs_lost_by_a_launcher_fail_alone(tmp_path, capsys):
    """As joblib does when the system kills a worker, and submitit when a job leaves no result."""

    class Launcher:
        def launch(self, lines, initial_job_idx):
            Row.begun(0, lines[0], "0").ended("finished").write(tmp_path)
            raise RuntimeError("a worker was killed")

    config = OmegaConf.create({"hydra": {"launcher": {}, "sweep": {"dir": str(tmp_path)}}})
    sweeper = SimpleNamespace(config=config, launcher=Launcher())
    ended = launch.launch(sweeper, {0: ["seed=0"], 1: ["seed=1"]})
    assert {n: row.state for n, row in ended.items()} == {0: "finished", 1: "failed"}
    assert ended[1].error == "was not begun" and "a worker was killed" in capsys.readouterr().err


def test_a_killed_joblib_job_does_not_stop_queued_jobs(tmp_path):
    """joblib ends jobs that run beside a killed one; queued jobs still run."""
    words = ("-m", "seed=0,1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    with (
        open(tmp_path / "log", "w") as log,
        subprocess.Popen(
            sweeps.line(tmp_path, *words), cwd=tmp_path, stdout=log, stderr=log
        ) as process,
    ):
        try:
            end = time.monotonic() + 240
            while not (owners := [row.owner for row in rows.read(sweeps.folder(tmp_path))]):
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.02)
            os.kill(int(owners[0].split()[0]), signal.SIGKILL)
            code = process.wait(240)
        finally:
            process.kill()
    printed = (tmp_path / "log").read_text()[-3000:]
    states = [row["state"] for row in sweeps.table(tmp_path)]
    assert code == 1 and "interrupted" in states[:2] and states[2:] == ["finished"] * 2, printed
