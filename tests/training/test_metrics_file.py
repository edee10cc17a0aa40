"""The log of a run: one exact row per step, complete after resumption."""

import copy
import csv
import errno
import os

import pytest

from tinyflux_pl.core.errors import DiskFull
from tinyflux_pl.training.metrics_file import MetricsFile


def rows(log):
    with open(log.path, newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


@pytest.fixture
def log(tmp_path):
    log = MetricsFile(str(tmp_path))
    for step in (5, 10):
        log.log_metrics({"train/loss": step / 3}, step)
    log.log_metrics({"preview/accuracy_all": 0.5}, 10)
    log.log_metrics({"validation/loss": 0.25}, 10)
    log.log_metrics({"validation/loss": 0.125}, 12)
    return log


def test_a_step_has_one_row_and_numbers_are_exact(log):
    assert log.path == log.path.parents[1] / "csv" / "metrics.csv"
    assert [row["step"] for row in rows(log)] == ["5", "10", "12"]
    assert rows(log)[1] == {
        "step": "10",
        "train/loss": repr(10 / 3),
        "preview/accuracy_all": "0.5",
        "validation/loss": "0.25",
    }


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (12, [("5", 2), ("10", 4)]),  # 12 held nothing of training's own
        (11, [("5", 2), ("10", 4)]),
        (10, [("5", 2), ("10", 2)]),  # its preview and validation are made again
        (7, [("5", 2)]),
        (0, []),
    ],
)
def test_rows_after_the_resume_step_are_replaced(log, step, kept):
    again = MetricsFile(log.save_dir)
    again.continue_from(step)
    assert [(row["step"], len(row)) for row in rows(again)] == kept


def test_an_interrupted_log_continued_equals_the_uninterrupted_one(log):
    original = log.path.read_bytes()
    again = MetricsFile(log.save_dir)
    again.continue_from(10)
    again.log_metrics({"preview/accuracy_all": 0.5}, 10)
    again.log_metrics({"validation/loss": 0.25}, 10)
    again.log_metrics({"validation/loss": 0.125}, 12)
    assert again.path.read_bytes() == original


def test_every_row_is_in_the_file_without_finalisation(log):
    """Every row is in the file at once: a SIGKILL between two rows loses none."""
    assert len(rows(log)) == 3 and not log.path.read_text().endswith("\n\n")
    log.finalize("failed")
    assert len(rows(log)) == 3


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_truncated_last_row_is_ignored(log, cut):
    """A kill between two pages, or a full disk: `120.5,...` must not come back as step 1."""
    log.log_metrics({"train/loss": 1 / 3}, 120)
    original = log.path.read_bytes()
    log.path.write_bytes(original[:-cut])
    again = MetricsFile(log.save_dir)
    again.continue_from(12)
    assert [row["step"] for row in rows(again)] == ["5", "10"]
    log.path.write_bytes(original[:-cut])
    again = MetricsFile(log.save_dir)
    again.continue_from(121)
    assert [row["step"] for row in rows(again)] == ["5", "10", "12"]


@pytest.mark.parametrize("free_bytes", [0, 3])
def test_a_full_disk_is_reported_as_disk_full(log, monkeypatch, free_bytes):
    honest, before = os.pwrite, log.path.read_bytes()

    def full(handle, line, position):
        if not free_bytes and line not in before:
            raise OSError(errno.ENOSPC, "No space left on device")
        return honest(
            handle, line if line in before else line[:free_bytes], position
        )  # as the kernel does: what fits, and no error

    monkeypatch.setattr(os, "pwrite", full)
    for step in (12, 15):  # a row that grows, and a new one
        with pytest.raises(DiskFull, match=r"no space to write metrics\.csv"):
            MetricsFile.log_metrics(copy.deepcopy(log), {"train/loss": 0.5}, step)
        assert log.path.read_bytes() == before


def test_a_resumed_run_without_a_log_starts_one(tmp_path):
    log = MetricsFile(str(tmp_path))
    log.continue_from(100)
    log.log_metrics({"train/loss": float("nan")}, 101)
    assert rows(log) == [{"step": "101", "train/loss": "nan"}]
