"""One rank, then two, then one again, with one global batch: no sample is lost or drawn twice."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from tests.faults import small_runs
from tests.faults.forks import Child, Ended
from tests.faults.test_05_resume import kill_after_step

TWO = ("hardware.devices=2", "hardware.strategy=ddp")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def torchrun(
    root: Path, name: str, *overrides: str, trap: Callable[[Path], None] | None = None
) -> list[Ended]:
    """Two ranks on this machine, as torchrun starts them; the trap is in the second."""
    port = free_port()
    # both before either starts: the first would count as an attempt of its own for the second
    works = []
    for rank in (0, 1):
        environment = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "GROUP_RANK": 0,
            "WORLD_SIZE": 2,
            "LOCAL_WORLD_SIZE": 2,
        }
        environment |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "TORCHELASTIC_RUN_ID": "test",
        }
        ranks = {key: str(value) for key, value in environment.items()}
        works.append(
            small_runs.training(
                root, name, *TWO, *overrides, before=trap if rank else None, ranks=ranks
            )
        )
    with ExitStack() as stack:
        logs = [root / f"{name}_{rank}.log" for rank in (0, 1)]
        children = [
            stack.enter_context(Child(work, log)) for work, log in zip(works, logs, strict=True)
        ]
        return [child.wait(small_runs.PATIENCE) for child in children]


def test_a_run_resumes_on_another_number_of_ranks(tmp_path: Path, figure: Any) -> None:
    small_runs.warm()
    uninterrupted = small_runs.draws(small_runs.finished(tmp_path, "whole"))
    with Child(
        small_runs.training(tmp_path, "broken", before=kill_after_step(14)), tmp_path / "killed.log"
    ) as child:
        assert child.wait(small_runs.PATIENCE).code == -9
    # Only the second rank is asked to stop; both do, at the same step.
    stop = kill_after_step(23, signal.SIGTERM)
    first, second = torchrun(tmp_path, "broken", "resume=auto", trap=stop)
    assert (first.code, second.code) == (143, 0), first.printed + second.printed
    assert "at step 10 of 40" in first.printed and "step_0000023" in first.printed
    folder = small_runs.finished(tmp_path, "broken", "resume=auto")
    assert "at step 23 of 40" in (tmp_path / "broken.log").read_text()
    draws = small_runs.draws(folder)
    same = sum(one == other for one, other in zip_longest(uninterrupted, draws))
    lost = {(s, i) for s, ids in uninterrupted for i in ids} - {
        (s, i) for s, ids in draws for i in ids
    }
    note = (
        f"{len(lost)} samples lost, "
        f"{sum(len(ids) for _, ids in draws) - sum(len(ids) for _, ids in uninterrupted)} repeated"
    )
    figure(
        24,
        "ranks 1, 2, 1: samples of each micro-batch",
        same,
        max(len(uninterrupted), len(draws)),
        note,
    )


RECORDED = [[0, [1, 2]], [0, [3, 4]], [1, [5, 6]], [1, [7, 8]]]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ([*RECORDED, None], None),
        (RECORDED, None),  # killed with the same step under way
        (RECORDED[:3], None),  # or before its last micro-batch
        (RECORDED[:2], None),  # or before the first
        ([*RECORDED[:3], None], "nothing killed"),
        (RECORDED[:1], "lacks the steps"),
        ([], "lacks the steps"),
        ([*RECORDED[:2], [2, [5, 6]], RECORDED[3]], "not at the same step"),
    ],
)
def test_missing_draws_of_a_rank_are_not_mistaken_for_a_kill(
    tmp_path: Path, second: Any, message: str | None
) -> None:
    """Tests the comparison: two ranks' records may only lack the step under way."""
    for rank, lines in enumerate(([*RECORDED, None], second)):
        (tmp_path / f"draws_000_{rank}.jsonl").write_text(
            "".join(f"{json.dumps(line)}\n" for line in lines)
        )
    with nullcontext() if message is None else pytest.raises(AssertionError, match=message):
        drawn = small_runs.draws(tmp_path)
        assert drawn == [
            [step, ids * 2] for step, ids in RECORDED[: sum(line is not None for line in second)]
        ]


def test_two_ranks_write_one_cache_and_one_run(tmp_path: Path) -> None:
    small_runs.warm()
    ended = torchrun(tmp_path, "two", "steps=12")
    assert [e.code for e in ended] == [0, 0], ended[0].printed[-3000:] + ended[1].printed[-3000:]
    folder = tmp_path / "outputs" / "two"
    assert "training is done" in ended[0].printed and "training is done" not in ended[1].printed
    assert sorted(p.name for p in folder.glob("config*")) == ["config.json"]
    assert [p.name for p in sorted((folder / "samples").glob("*.png"))] == ["step_0000012.png"]
    assert "encode" in ended[0].printed and "encode" not in ended[1].printed
