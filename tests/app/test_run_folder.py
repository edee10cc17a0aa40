"""An empty folder that Hydra created for a job is removed; one with files stays."""

import errno
import fcntl
import os
import signal
import time

import pytest

from tests.faults import forks
from tinyflux_pl.app import run_folder
from tinyflux_pl.app.run_folder import remove_empty_run_dir


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "outputs" / "job"
    folder.mkdir(parents=True)
    (folder / "generate.log").touch()

    def recipe(leaves):
        @remove_empty_run_dir
        def wrapped(config):
            return leaves(folder)

        return wrapped({"run_dir": str(folder), "paths": {"root": str(tmp_path)}})

    return recipe


def test_an_empty_run_folder_is_removed_and_the_root_stays(run, tmp_path):
    assert run(lambda folder: 0) == 0
    assert tmp_path.is_dir() and not list(tmp_path.iterdir())


def test_an_empty_run_folder_is_removed_after_an_error(run, tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(lambda folder: 1 / 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["generate.log", "image_0000.png"])
def test_a_run_folder_with_files_is_kept(run, tmp_path, name):
    run(lambda folder: (folder / name).write_text("something"))
    assert (tmp_path / "outputs" / "job" / name).read_text() == "something"


def test_only_rank_zero_removes_an_empty_run_folder(run, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    run(lambda folder: 0)
    assert (tmp_path / "outputs" / "job" / "generate.log").exists()


def test_a_timestamped_folder_of_another_rank_is_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    folder = tmp_path / "outputs" / "a-second-later"
    folder.mkdir(parents=True)
    (folder / "train.log").touch()
    config = {"run_dir": str(folder), "paths": {"root": str(tmp_path)}, "task": "train"}
    run_folder.remove_empty_run_dir(lambda _: 0)(config)
    assert not folder.exists()


def test_a_run_folder_has_one_owner_and_keeps_no_lock_file(tmp_path):
    def second():
        with run_folder.locked_run_dir(tmp_path / "run"):
            print("in")

    with run_folder.locked_run_dir(tmp_path / "run"):
        refused = forks.run(second, tmp_path / "log")
        assert refused.code == 1 and f"is being trained by process {os.getpid()}" in refused.printed
        assert "in" not in refused.printed.splitlines()
    assert forks.run(second, tmp_path / "log").printed == "in\n"
    assert not list((tmp_path / "run").iterdir())


def test_the_lock_of_a_killed_owner_is_free_while_its_workers_live(tmp_path):
    def work():
        with run_folder.locked_run_dir(tmp_path):
            # as a DataLoader's worker, which notices within seconds that its parent is gone
            if not os.fork():
                (tmp_path / "worker").write_text(str(os.getpid()))
                time.sleep(60)
                os._exit(0)
            while not (tmp_path / "worker").exists() or not (tmp_path / "worker").read_text():
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL)

    assert forks.run(work, tmp_path / "log").code == -signal.SIGKILL
    worker = int((tmp_path / "worker").read_text())
    try:
        os.kill(worker, 0)
        with run_folder.locked_run_dir(tmp_path):
            assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_refused_process_leaves_the_log_of_the_owner(run, tmp_path):
    folder = tmp_path / "outputs" / "job"
    (folder / ".lock").write_text("1")
    run(lambda folder: 0)
    assert (folder / "generate.log").exists()


def test_only_the_writing_rank_locks_the_folder(tmp_path, monkeypatch):
    with run_folder.locked_run_dir(tmp_path):
        monkeypatch.setenv("RANK", "1")

        def second():
            with run_folder.locked_run_dir(tmp_path):
                print("in")

        assert forks.run(second, tmp_path / "log").printed == "in\n"


def test_a_run_continues_on_file_systems_without_locks(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", unknown)
    with run_folder.locked_run_dir(tmp_path):
        pass


def test_a_lock_on_a_removed_file_is_retried(tmp_path, monkeypatch):
    """The last owner may remove the file between opening and locking: the lock protects nothing."""
    lock, calls = fcntl.lockf, []

    def removed_before(file, how):
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(how)
        return lock(file, how)

    monkeypatch.setattr(fcntl, "lockf", removed_before)

    def second():
        with run_folder.locked_run_dir(tmp_path):
            print("in")

    with run_folder.locked_run_dir(tmp_path):
        # to read it here would give up the lock
        assert (tmp_path / ".lock").exists() and len(calls) == 2
        assert forks.run(second, tmp_path / "log").code == 1
