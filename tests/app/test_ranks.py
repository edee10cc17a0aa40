"""Which process is rank 0, by what each launcher sets; and that the others wait until the caches
lack nothing.
"""

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
def test_rank_0_is_told_by_the_launcher_s_variables(monkeypatch, variables, first):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rank.is_rank_zero() is first


@pytest.fixture
def looks(monkeypatch):
    """What the caches lack at each look, the last for ever; and what was done, in order."""
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


def test_rank_0_makes_what_the_caches_lack_at_once(looks):
    ranks.prepare_on_rank_zero(None)
    assert looks == ["prepare"]


def test_other_ranks_wait_until_the_caches_lack_nothing(looks, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    ranks.prepare_on_rank_zero(None)
    assert looks == ["look", "look", "look", "prepare"]


def test_a_rank_that_waits_is_stopped_by_a_signal(looks, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(interruption, "_request", None)
    interruption.request_stop(signal.SIGTERM)
    with pytest.raises(Interrupted):
        ranks.prepare_on_rank_zero(None)
    assert looks == ["look"]
