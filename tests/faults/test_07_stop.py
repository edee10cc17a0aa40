"""SIGTERM in any phase: saved, at most one step lost, ended in ten seconds, resumed equally."""

from __future__ import annotations

import multiprocessing
import os
import random
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults import small_runs
from tests.faults.conftest import times
from tests.faults.forks import Child
from tests.faults.test_05_resume import DRAW, LOSS, MANIFEST, VALIDATE, at_call
from tinyflux_pl.checkpoints import directory

SECONDS = 10.0  # the promise
REPEATS = times(1, 10)
# Phase -> (what runs in it, the calls of it in a run that lie in the phase): see SMALL for the
# run's intervals.
PHASES: dict[str, tuple[tuple[str, str], range]] = {
    "training": (LOSS, range(1, 81)),
    "validation": (VALIDATE, range(1, 26)),
    "preview": (DRAW, range(1, 5)),
    "saving": (MANIFEST, range(1, 5)),
    "evaluation": (DRAW, range(5, 7)),
    "extraction": (("codecs.pixel_folding:PixelFolding", "encode"), range(2, 7)),
    "dry run": (("training.dry_run:DryRun", "on_train_batch_end"), range(1, 5)),
}
BEFORE_TRAINING = ("extraction", "dry run")


def stopped_run(where: tuple[str, str], call: int, chance: random.Random) -> Callable[[Path], None]:
    """A SIGTERM that comes at any moment after the call began."""
    delay = chance.random() / 100

    def ask() -> None:
        def later() -> None:
            time.sleep(delay)
            small_runs.die(signal.SIGTERM)

        print(f"asked at {time.monotonic()}", flush=True)
        threading.Thread(target=later, daemon=True).start()

    return at_call(*where, call, ask)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a complete run and its caches."""
    small_runs.warm()
    folder = tmp_path_factory.mktemp("stop")
    small_runs.finished(folder, "whole")
    return folder


@pytest.mark.parametrize("phase", PHASES)
def test_a_stop_loses_at_most_a_step(phase: str, root: Path, figure: Any) -> None:
    where, calls = PHASES[phase]
    chance, wrong, slowest = random.Random(phase), [], 0.0
    for k in range(REPEATS):
        folder = root / "outputs" / f"{phase}_{k}"
        chosen = ["preflight=true"] if phase == "dry run" else []
        if phase == "extraction":  # it needs caches that are not made yet, of several shards
            chosen = [f"paths.cache={root}/cache_{k}", "data.shard_size=8"]
        trap = stopped_run(where, chance.choice(calls), chance)
        work = small_runs.training(
            root, folder.name, *chosen, before=trap, through_command_line=True
        )
        with Child(work, root / f"{folder.name}.log") as child:
            ended = child.wait(small_runs.PATIENCE)
            seconds = time.monotonic() - float(ended.printed.partition("asked at ")[2].split()[0])
        slowest, fault = max(slowest, seconds), judged(folder, phase, ended.printed)
        if ended.code != 143 or seconds > SECONDS or fault:
            wrong.append(
                f"{k}: exit code {ended.code}, {seconds:.1f} s, {fault}\n{ended.printed[-1500:]}"
            )
        else:
            resumed_as_printed(folder, ended.printed)
            if phase not in BEFORE_TRAINING:
                different = small_runs.differences(
                    *map(small_runs.outcome, (root / "outputs" / "whole", folder))
                )
                wrong += [f"{k}: resumed with other {name}" for name in different]
    note = f"the slowest took {slowest:.1f} s to end" + "; ".join(["", *wrong])
    figure(
        7,
        f"SIGTERM during {phase}: saved, ended, resumed to the bit",
        REPEATS - len(wrong),
        REPEATS,
        note,
    )


def judged(folder: Path, phase: str, printed: str) -> str:
    """Everything that was lost beyond one step, or ""."""
    if "resume=auto" not in printed:
        return "it does not say how to go on"
    if phase in BEFORE_TRAINING:
        return "" if not (folder / "checkpoints").exists() else "it began to train"
    drawn = [step for step, _ in small_runs.draws(folder)]
    saved = directory.newest_valid(folder / "checkpoints")[0]
    step = 0 if saved is None else saved.step
    # the step under way is finished before the run ends, or was not begun
    return (
        ""
        if step >= drawn[-1] and f"step_{step:07d}" in printed
        else f"step {step} is saved, {drawn[-1]} was begun"
    )


def resumed_as_printed(folder: Path, printed: str) -> None:
    """Give the command that was printed, word for word."""
    line = next(line for line in printed.splitlines() if "resume=auto" in line)
    words = shlex.split(line.partition("python train.py ")[2])

    def work() -> None:
        from tinyflux_pl.app.cli.command_line import run

        small_runs.record_draws(folder / "draws_001_0.jsonl")
        sys.argv = ["train.py", *words]
        run("train")

    with Child(work, folder / "followed.log") as child:
        ended = child.wait(small_runs.PATIENCE)
    assert ended.code == 0 and "training is done" in ended.printed, ended.printed[-3000:]


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    """Unless it may be the same request passed on by a launcher."""
    from tinyflux_pl.core import interruption

    def work() -> None:
        with interruption.listening():
            small_runs.die(signal.SIGTERM)
            small_runs.die(signal.SIGTERM)
            print("still here")
            interruption._request = (
                interruption._request[0],
                interruption._request[1] - interruption.SAME_REQUEST,
            )
            small_runs.die(signal.SIGINT)
            print("and here")

    with Child(work, tmp_path / "log") as child:
        ended = child.wait(small_runs.PATIENCE)
    assert (
        ended.code == -signal.SIGINT
        and "still here" in ended.printed
        and "and here" not in ended.printed
    )


def test_a_signal_to_the_process_group_spares_the_workers(root: Path) -> None:
    """As sent by Ctrl-C and cluster managers; dead workers would end the run."""

    def to_all() -> None:
        os.killpg(0, signal.SIGTERM)
        time.sleep(0.5)  # in which a worker that heeds it dies
        print(f"workers alive: {len(multiprocessing.active_children())}", flush=True)

    def trap(folder: Path) -> None:
        os.setpgid(0, 0)
        at_call(*LOSS, 30, to_all)(folder)

    with Child(
        small_runs.training(root, "group", "hardware.workers=2", before=trap), root / "group.log"
    ) as child:
        ended = child.wait(small_runs.PATIENCE)
    assert ended.code == 143 and "step_0000015" in ended.printed, ended.printed[-3000:]
    assert "workers alive: 2" in ended.printed, ended.printed[-3000:]
    assert ended.printed.count("SIGTERM: stopping") == 1, "a worker took the request for its own"
