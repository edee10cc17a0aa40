"""A warm-up longer than the run is noted before the first step."""

from types import SimpleNamespace

import pytest

from tests.app.preflights import only
from tinyflux_pl.app.preflight import expectations


@pytest.mark.parametrize(
    ("warmup", "steps", "noted"), [(100, 60, True), (60, 60, True), (59, 60, False), (0, 1, False)]
)
def test_a_warmup_longer_than_the_run_is_noted(warmup, steps, noted):
    notes = expectations.schedule_notes(
        SimpleNamespace(steps=steps, schedule={"warmup_steps": warmup})
    )
    assert bool(notes) is noted
    assert all(
        f"warm-up of {warmup} steps" in note and "schedule.warmup_steps=" in note for note in notes
    )


def test_preflight_prints_schedule_notes(tmp_path, capsys):
    only(tmp_path, "run=x", "steps=20", "schedule.warmup_steps=100")
    assert "note: the warm-up of 100 steps is longer than the run of 20" in capsys.readouterr().out
