"""A run goes on whether the network is compiled or not, whichever it was before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.faults import small_runs
from tests.faults.conftest import FULL
from tests.faults.forks import Child
from tinyflux_pl.checkpoints import directory

STAGES = ((3, True), (6, False), (9, True), (12, False))  # the step that each ends at, and whether it is compiled
CHOSEN = ("schedule.total_steps=12", "data.evaluation_prompts=0", "callbacks.checkpoint.every_steps=0")


def quick_compiler(_: Path) -> None:
    """Compile by tracing alone, unless all faults are tried in full: code generation takes a minute a run."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # its pool of processes does not survive the fork
    compiled = nn.Module.compile

    def compile_and_say(self: nn.Module, **chosen: Any) -> None:
        print("compiled", flush=True)
        compiled(self, **({} if FULL else {"backend": "aot_eager"}), **chosen)

    nn.Module.compile = compile_and_say


def test_compiled_then_not_and_back(tmp_path: Path, figure: Any) -> None:
    small_runs.warm()
    whole = small_runs.finished(tmp_path, "whole", *CHOSEN, "steps=12")
    passed, log, faults = 0, tmp_path / "mixed.log", []
    for step, compiled in STAGES:
        asked = (*CHOSEN, f"steps={step}", f"hardware.compile={str(compiled).lower()}", "resume=auto")
        with Child(small_runs.training(tmp_path, "mixed", *asked, before=quick_compiler), log) as child:
            ended = child.wait(900 if FULL else 120)
        begun = step == 3 or f"at step {step - 3} of {step}" in ended.printed
        saved = tmp_path / "outputs" / "mixed" / "checkpoints" / f"step_{step:07d}"
        good = ended.code == 0 and begun and ("compiled" in ended.printed) == compiled and directory.verifies(saved)
        passed += good
        faults += [] if good else [f"up to step {step}: exit code {ended.code}\n{ended.printed[-1500:]}"]
    one, other = (
        directory.read(folder / "checkpoints" / "step_0000012").weights("raw")
        for folder in (whole, tmp_path / "outputs" / "mixed")
    )
    assert not faults, "\n".join(faults)
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)
    figure(23, "compiled, not, compiled, not: resumed", passed, len(STAGES), "inductor" if FULL else "traced only")
