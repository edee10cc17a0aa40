"""A search on the real command line: killed and continued, pruned, and refused before it starts."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.app.sweeps import sweeps
from tinyflux_pl.app.cli.command_line import run
from tinyflux_pl.app.sweeps import rows, study_file
from tinyflux_pl.app.sweeps.search import LOCK
from tinyflux_pl.app.sweeps.study import FILE, LOST
from tinyflux_pl.core.file_lock import locked

LR = "optimizer.muon_lr=tag(log,interval(1e-4,1e-1))"
SEARCH = ("hparams_search=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.sampler=random")


def trials(root):
    return study_file.load(sweeps.folder(root) / FILE, None).trials


def test_a_search_killed_within_a_trial_resumes_with_every_trial_once(tmp_path):
    words = (*SEARCH, LR, "hydra.sweeper.pruner=null")
    with (
        open(tmp_path / "log", "w") as log,
        subprocess.Popen(
            sweeps.line(tmp_path, *words), cwd=tmp_path, stdout=log, stderr=log
        ) as process,
    ):
        try:
            end = time.monotonic() + 240
            while len(rows.read(sweeps.folder(tmp_path))) < 2:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
        finally:
            process.kill()
    assert [trial.state.name for trial in trials(tmp_path)] == ["COMPLETE", "RUNNING"]
    completed = sweeps.run(tmp_path, *words)
    assert completed.returncode == 0, completed.stderr[-3000:]
    assert "trials of an interrupted search that run again: 1" in completed.stdout
    study = trials(tmp_path)
    assert [trial.state.name for trial in study] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert LOST in study[1].user_attrs and study[2].params == study[1].params
    values = [
        trial.params["optimizer.muon_lr"] for trial in study if trial.state.name == "COMPLETE"
    ]
    assert len(set(values)) == 3
    table = sweeps.table(tmp_path)
    states = [row["state"] for row in table]
    assert states == ["finished", "interrupted", "finished", "finished"]
    for trial, row in zip(study, table, strict=True):
        assert trial.values is None or trial.values[0] == float(row["validation_loss"])
        assert f"optimizer.muon_lr={trial.params['optimizer.muon_lr']}" in row["overrides"]
    once_more = sweeps.run(tmp_path, *words)
    assert once_more.returncode == 0 and trials(tmp_path) == study, "there is nothing left to run"


def test_a_much_worse_trial_is_pruned_and_not_counted_as_failed(tmp_path):
    words = ("hydra.sweeper.sampler=grid", "hydra.sweeper.pruner_startup_trials=1", "steps=4")
    completed = sweeps.run(
        tmp_path,
        *("hparams_search=optuna", "optimizer.muon_lr=choice(1e-3,10.0)", *words),
        "callbacks.validation.every_steps=2",
    )
    assert completed.returncode == 0, completed.stderr[-3000:]
    assert [row["state"] for row in sweeps.table(tmp_path)] == ["finished", "pruned"], (
        completed.stdout
    )
    assert [trial.state.name for trial in trials(tmp_path)] == ["COMPLETE", "PRUNED"]
    assert "pruned at step 2: validation/loss is" in completed.stdout
    assert list((sweeps.folder(tmp_path) / "1" / "checkpoints").glob("step_0000002"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((LR, "steps=0,2"), "steps is 0"),
        (("optimizer.muon_lr=interval(-1.0,0.1)",), "invalid options of Muon"),
        ((LR, "hydra.sweeper.sampler=best"), "hydra.sweeper.sampler"),
        ((LR, "optimized_metric=null"), "a search needs a metric"),
        ((LR, "optimized_metric=validation_los"), "did you mean validation_loss"),
        ((LR, "optimized_metric=parameters"), "hydra.sweeper.pruner=null"),
        ((LR, "optimized_metric=[validation_loss,seconds]"), "1 directions for 2 metrics"),
        ((LR, "hydra.sweeper.sampler=grid"), "a grid cannot hold"),
        ((), "nothing to search"),
    ],
)
def test_an_invalid_search_is_refused_before_its_first_trial(
    tmp_path, words, says, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["train.py", *sweeps.line(tmp_path, *SEARCH, *words)[2:]])
    with pytest.raises(SystemExit) as stop:
        run("train")
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and says in printed, printed
    assert not list(sweeps.folder(tmp_path).glob("[0-9]*"))


def test_a_second_process_on_one_search_is_refused(tmp_path, monkeypatch, capsys):
    sweeps.folder(tmp_path).mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["train.py", *sweeps.line(tmp_path, *SEARCH, LR)[2:]])
    with locked(sweeps.folder(tmp_path), LOCK), pytest.raises(SystemExit):
        run("train")
    owner = f"{os.getpid()} on {os.uname().nodename}"
    assert f"this search is being run by process {owner}" in capsys.readouterr().err
