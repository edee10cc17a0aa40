"""A run goes on whether the network is compiled or not, whichever it was before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.faults import small_runs
from tests.faults.conftest import FULL
from tests.house.source import ROOT
from tinyflux_pl.checkpoints import directory

# The step that a stage ends at, and whether it is compiled.
STAGES = ((3, True), (6, False), (9, True), (12, False)) if FULL else ((3, True), (6, False))
LAST = STAGES[-1][0]
CHOSEN = (
    f"schedule.total_steps={LAST}",
    "data.evaluation_prompts=0",
    "callbacks.checkpoint.every_steps=0",
)


def stage(root: str, *overrides: str) -> None:
    """A part of the run in its own process: compilers cannot trace pytest's type checks."""
    compiled = nn.Module.compile

    def compile_and_say(self: nn.Module) -> None:
        print("compiled", flush=True)
        # Generating code takes a minute; that compiled and plain networks share a checkpoint shows
        # without it.
        compiled(self, **({} if FULL else {"backend": "eager"}))

    nn.Module.compile = compile_and_say
    small_runs.training(Path(root), "mixed", *overrides)()


def test_a_run_resumes_between_compiled_and_eager(tmp_path: Path, figure: Any) -> None:
    small_runs.warm()
    uninterrupted = small_runs.finished(tmp_path, "whole", *CHOSEN, f"steps={LAST}")
    passed, faults = 0, []
    for step, compiled in STAGES:
        overrides = (
            *CHOSEN,
            f"steps={step}",
            f"hardware.compile={str(compiled).lower()}",
            "resume=auto",
        )
        code = (
            f"from tests.faults.test_23_compiled_and_not import stage; stage({str(tmp_path)!r}, "
            f"*{overrides!r})"
        )
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True
        )
        begun = step == 3 or f"at step {step - 3} of {step}" in ended.stdout
        saved = tmp_path / "outputs" / "mixed" / "checkpoints" / f"step_{step:07d}"
        good = ended.returncode == 0 and begun and ("compiled\n" in ended.stdout) == compiled
        good = good and directory.verifies(saved)
        passed += good
        faults += (
            []
            if good
            else [
                f"up to step {step}: {ended.returncode}\n{ended.stdout[-900:]}{ended.stderr[-900:]}"
            ]
        )
    assert not faults, "\n".join(faults)
    one, other = (
        directory.read(folder / "checkpoints" / f"step_{LAST:07d}").weights("raw")
        for folder in (uninterrupted, tmp_path / "outputs" / "mixed")
    )
    assert one.keys() == other.keys()
    # A compiler rounds otherwise, which Muon's orthogonal steps make larger: up to 6e-4 after six
    # of them.
    assert all(torch.allclose(one[name], other[name], atol=3e-3) for name in one)
    figure(
        23,
        "compiled, not, compiled, not: resumed",
        passed,
        len(STAGES),
        "inductor" if FULL else "traced only",
    )
