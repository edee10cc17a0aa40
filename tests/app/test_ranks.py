"""Rank 0 is read from the variables of each launcher; other ranks wait for complete caches."""

import signal

import pytest

from tinyflux_pl.app.caches import ranks
from tinyflux_pl.core import interruption, rank
from tinyflux_pl.core.errors import Interrupted

VARIABLES = ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_STEP_ID", "SLURM_PROCID")
SRUN = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        # torchrun, on the second machine
        ({"RANK": "2", "LOCAL_RANK": "0", "NODE_RANK": "0"}, False),
        ({"LOCAL_RANK": "1"}, False),  # Lightning's own launcher
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, True),
        ({**SRUN, "SLURM_PROCID": "0"}, True),
        ({**SRUN, "SLURM_PROCID": "1"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, True),  # within sbatch, without srun
    ],
)
def test_rank_zero_is_read_from_the_launcher_environment(monkeypatch, variables, first):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rank.is_rank_zero() is first


@pytest.fixture
def looks(monkeypatch):
    """Missing splits at each look (the last repeats), and the calls made, in order."""
    done, lacking = [], [["train"], ["train"], []]

    def look(_):
        done.append("look")
        return lacking.pop(0) if len(lacking) > 1 else lacking[0]

    monkeypatch.setattr(ranks, "_incomplete_stores", look)
    monkeypatch.setattr(ranks, "POLL_SECONDS", 0)
    monkeypatch.setattr(
        ranks.prepare, "prepare", lambda parts, sources=None: done.append("prepare")
    )
    return done


def test_rank_zero_extracts_missing_cache_rows(looks):
    ranks.prepare_on_rank_zero(None)
    assert looks == ["prepare"]


def test_other_ranks_wait_until_the_caches_are_complete(looks, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    ranks.prepare_on_rank_zero(None)
    assert looks == ["look", "look", "look", "prepare"]


def test_a_waiting_rank_is_stopped_by_a_signal(looks, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(interruption, "_request", None)
    interruption.request_stop(signal.SIGTERM)
    with pytest.raises(Interrupted):
        ranks.prepare_on_rank_zero(None)
    assert looks == ["look"]
