"""A job of a sweep leaves nothing behind that the next one would see."""

import logging
import os
import random
import types
import warnings

import numpy as np
import pytest
import torch

from tinyflux_pl.app.cli.job_isolation import isolated


def test_process_state_changed_by_a_job_is_restored(monkeypatch, tmp_path):
    monkeypatch.setenv("KEPT", "1")
    logging.getLogger("some.library").setLevel(logging.WARNING)
    before = (
        os.getcwd(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.initial_seed(),
        random.random(),
    )
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    drawn = (
        random.Random(3).random(),
        np.random.RandomState(3).rand(),
        torch.rand(1, generator=seeded(3)),
    )
    with isolated():
        os.environ["LEFT"], os.environ["KEPT"] = "x", "2"
        os.chdir(tmp_path)
        torch.set_num_threads(before[1] + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = True
        logging.getLogger("some.library").setLevel(logging.DEBUG)
        warnings.simplefilter("error")
        random.random(), np.random.rand(), torch.rand(3)
    assert "LEFT" not in os.environ and os.environ["KEPT"] == "1"
    assert (os.getcwd(), torch.get_num_threads(), torch.get_default_dtype()) == before[:3]
    assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    assert logging.getLogger("some.library").level == logging.WARNING
    assert (random.random(), np.random.rand()) == drawn[:2] and torch.rand(1) == drawn[2]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("fails", [False, True])
def test_a_failing_job_restores_process_state_and_ends_its_wandb_run(monkeypatch, fails):
    ended = []
    library = types.SimpleNamespace(run=object(), finish=lambda exit_code: ended.append(exit_code))
    monkeypatch.setitem(__import__("sys").modules, "wandb", library)
    try:
        with isolated():
            os.environ["LEFT"] = "x"
            if fails:
                raise RuntimeError("of the job")
    except RuntimeError:
        assert fails
    assert "LEFT" not in os.environ and ended == [int(fails)]


def test_two_jobs_write_two_wandb_runs(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    for job in ("0", "1"):
        (tmp_path / job).mkdir()
        with isolated():
            wandb.init(mode="offline", dir=tmp_path / job, config={"job": job})
        assert wandb.run is None
    assert sorted(file.relative_to(tmp_path).parts[0] for file in tmp_path.rglob("*.wandb")) == [
        "0",
        "1",
    ]
