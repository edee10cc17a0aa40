"""A run killed repeatedly draws every sample of an uninterrupted one once, in the same order."""

from __future__ import annotations

import random
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tests.faults import small_runs
from tests.faults.conftest import times
from tests.faults.forks import Child

STEPS, KILLS = times(60, 400), times(2, 20)
CHOSEN = (
    f"steps={STEPS}",
    "callbacks.validation.every_steps=75",
    "callbacks.preview.every_steps=125",
)


def killed_once_it_drew(root: Path, micro_batches: int, pause: float) -> int:
    """Start or resume the run, kill it after so many micro-batches; its exit code."""
    folder = root / "outputs" / "broken"
    file = folder / f"draws_{len(list(folder.glob('draws_*_0.jsonl'))):03d}_0.jsonl"
    work = small_runs.training(root, "broken", *CHOSEN, "resume=auto")
    with Child(work, root / "broken.log") as child:
        while child.alive() and (
            not file.exists() or file.read_bytes().count(b"\n") < micro_batches
        ):
            time.sleep(0.001)
        time.sleep(pause)
        return child.kill().code


def test_a_run_killed_many_times_ends_like_an_uninterrupted_one(
    tmp_path: Path, figure: Any
) -> None:
    small_runs.warm()
    uninterrupted = small_runs.outcome(small_runs.finished(tmp_path, "whole", *CHOSEN), STEPS)
    chance = random.Random(6)
    kills = 0
    for _ in range(KILLS):
        # far enough to save once: the run must get on
        drawn = chance.randrange(22, 22 + STEPS // KILLS)
        kills += killed_once_it_drew(tmp_path, drawn, chance.random() / 20) == -9
    assert kills == KILLS, f"only {kills} kills: the run was too short for them"
    broken = small_runs.outcome(
        small_runs.finished(tmp_path, "broken", *CHOSEN, "resume=auto"), STEPS
    )
    assert small_runs.differences(uninterrupted, broken) == []
    lost = {(s, i) for s, ids in uninterrupted["draws"] for i in ids} - {
        (s, i) for s, ids in broken["draws"] for i in ids
    }
    repeated = len(broken["draws"]) - len(uninterrupted["draws"])
    same = sum(one == other for one, other in zip_longest(uninterrupted["draws"], broken["draws"]))
    note = (
        f"{kills} kills: {len(lost)} samples lost, {repeated} micro-batches repeated; weights and "
        "log equal to the bit"
    )
    figure(
        6,
        f"kills through {STEPS} steps: micro-batches",
        same,
        max(len(uninterrupted["draws"]), len(broken["draws"])),
        note,
    )
