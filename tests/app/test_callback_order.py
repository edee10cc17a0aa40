"""The order of a run's callbacks is the documented one, on a fresh run and on a resumed one."""

import re
from pathlib import Path

import pytest

from tests.faults.numbers import fitting
from tinyflux_pl.checkpoints import directory

DOCUMENT = Path(__file__).parents[2] / "docs" / "architecture.md"


def documented_order():
    section = DOCUMENT.read_text().split("## Callbacks, in this order")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. `(\w+)`", section, re.MULTILINE)


CHOSEN = (
    "TeacherGate",
    "EarlyStopping",
    "RunIdentity",
)  # by other configurations than these runs have


def callback_names(run):
    callbacks = run.trainer.callbacks
    return [type(c).__name__ for c in callbacks if type(c).__module__.startswith("tinyflux_pl")]


@pytest.fixture(scope="module")
def fresh_and_resumed(tmp_path_factory):
    root = tmp_path_factory.mktemp("order")
    fresh = fitting(root, "order", "steps=1")
    names = callback_names(fresh)
    fresh.fit()
    checkpoint = directory.read(fresh.last_checkpoint)
    return names, callback_names(fitting(root, "order", "steps=2", resumed=checkpoint))


def test_a_fresh_run_has_the_documented_order(fresh_and_resumed):
    fresh, _ = fresh_and_resumed
    assert fresh == [name for name in documented_order() if name not in ("Resume", *CHOSEN)]


def test_a_resumed_run_has_the_documented_order(fresh_and_resumed):
    _, resumed = fresh_and_resumed
    assert resumed == [name for name in documented_order() if name not in CHOSEN]
    assert "Resume" in resumed
