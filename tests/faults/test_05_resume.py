"""A run cut anywhere and resumed ends with the bits of one that was never cut."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults import small_runs
from tests.faults.conftest import FULL
from tests.faults.forks import Child


def kill_after_step(step: int, number: int = signal.SIGKILL) -> Callable[[Path], None]:
    """Right after that optimizer step, before anything is done with it."""

    def trap(_: Path) -> None:
        from tinyflux_pl.training.flow_module import FlowModule

        take = FlowModule.optimizer_step

        def taken(self: Any, *args: Any, **kwargs: Any) -> None:
            take(self, *args, **kwargs)
            if self.step == step:
                small_runs.die(number)

        FlowModule.optimizer_step = taken

    return trap


def at_call(
    where: str, name: str, call: int, do: Callable[[], None], after: bool = False
) -> Callable[[Path], None]:
    """In the call-th call of a class's method, given as module:Class."""

    def trap(_: Path) -> None:
        import importlib

        module, _, owner = where.partition(":")
        holder = importlib.import_module(f"tinyflux_pl.{module}")
        holder = getattr(holder, owner) if owner else holder
        original, calls = getattr(holder, name), []

        def trapped(*args: Any, **kwargs: Any) -> Any:
            calls.append(None)
            if len(calls) == call and not after:
                do()
            result = original(*args, **kwargs)
            if len(calls) == call and after:
                do()
            return result

        setattr(holder, name, trapped)

    return trap


def fail() -> None:
    raise RuntimeError("on purpose")


def disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


MANIFEST = "checkpoints.manifest:", "write"
VALIDATE = "objectives.validation:FixedGrid", "errors"
DRAW = "sampling.images:ImageSampler", "batches"
LOSS = "objectives.flow:FlowObjective", "loss"
SAVE = "training.checkpoint_schedule:CheckpointSchedule", "_write"

# Where it is cut -> (the trap, the exit code or None for a SIGKILL, the step that it resumes from).
# Saved every 10 steps, validated every 8 (10 batches, of seen and held-out samples), drawn every
# 12; six steps of two micro-batches an epoch.
CUTS: dict[str, tuple[Callable[[Path], None], int, int]] = {
    "killed in mid-epoch": (kill_after_step(13), -9, 10),
    "killed at an epoch's end": (kill_after_step(24), -9, 20),
    "killed in mid-accumulation": (at_call(*LOSS, 54, small_runs.die), -9, 20),
    "killed in validation": (at_call(*VALIDATE, 13, small_runs.die), -9, 10),
    "killed after validation": (
        at_call("training.validation:Validation", "perform", 3, small_runs.die, True),
        -9,
        20,
    ),
    "killed in a preview": (at_call(*DRAW, 2, small_runs.die), -9, 20),
    "killed after a preview": (
        at_call("training.preview:Preview", "perform", 2, small_runs.die, True),
        -9,
        20,
    ),
    "killed while saving": (at_call(*MANIFEST, 2, small_runs.die), -9, 10),
    "killed before the first save": (kill_after_step(7), -9, 0),
    "stopped in mid-epoch": (kill_after_step(13, signal.SIGTERM), 143, 13),
    "stopped in validation": (
        at_call(*VALIDATE, 12, lambda: small_runs.die(signal.SIGTERM)),
        143,
        16,
    ),
    "stopped in a preview": (at_call(*DRAW, 2, lambda: small_runs.die(signal.SIGTERM)), 143, 24),
    "a step that fails": (at_call(*LOSS, 54, fail), 1, 26),
    "a full disk": (at_call(*MANIFEST, 2, disk_full), 1, 10),
}
QUICK = (("killed in mid-accumulation", 2), ("stopped in validation", 0), ("a step that fails", 0))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small_runs.warm()
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def uninterrupted(root: Path) -> dict[str, Any]:
    """The run that nothing cut."""
    return small_runs.outcome(small_runs.finished(root, "whole"))


def test_a_resumed_run_ends_like_an_uninterrupted_one(
    root: Path, uninterrupted: dict[str, Any], figure: Any
) -> None:
    cuts = [(name, workers) for name in CUTS for workers in (0, 2)] if FULL else list(QUICK)
    wrong = [line for cut in cuts for line in tried(root, uninterrupted, *cut)]
    figure(5, "a cut run resumed, to the bit", len(cuts) - len(wrong), len(cuts), "; ".join(wrong))


def test_every_random_stream_is_a_function_of_the_step(figure: Any) -> None:
    """A stream that ignores the step is equal in both runs, so run equality cannot detect it."""
    import torch

    from tests.objectives.test_flow import NULL, Expert, Spy, make_batch
    from tests.training.test_randomness_of_a_step import STREAMS
    from tinyflux_pl.diffusion.timesteps import Uniform
    from tinyflux_pl.objectives.flow import FlowObjective

    passed = 0
    for name, of in STREAMS.items():
        objective = FlowObjective(
            Uniform(), NULL, [Expert(0.5)], text_dropout=0.5 if name == "text dropout" else 0.0
        )
        one, again, later = (of(objective.draw(Spy(), make_batch(), step)) for step in (3, 3, 4))
        passed += torch.equal(one, again) and not torch.equal(one, later)
    figure(
        5,
        "times, noise and dropout: other at the next step, the same at the same step",
        passed,
        len(STREAMS),
    )


def tried(root: Path, uninterrupted: dict[str, Any], cut: str, workers: int) -> list[str]:
    """Cut, resume, compare: nothing, or what went wrong."""
    trap, code, step = CUTS[cut]
    name = f"{cut.replace(' ', '_').replace(chr(39), '')}_{workers}"
    chosen = f"hardware.workers={workers}"
    with Child(small_runs.training(root, name, chosen, before=trap), root / f"{name}.log") as child:
        ended = child.wait(small_runs.PATIENCE)
    if ended.code != code:
        return [f"{name}: exit code {ended.code}\n{ended.printed[-2000:]}"]
    folder = small_runs.finished(root, name, chosen, "resume=auto")
    log = (root / f"{name}.log").read_text()
    if (f"at step {step} of 40" if step else "starting at step 0") not in log:
        return [f"{name}: {log[:300]}"]
    different = small_runs.differences(uninterrupted, small_runs.outcome(folder))
    return [f"{name}: other {', '.join(different)}"] if different else []
