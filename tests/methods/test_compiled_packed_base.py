"""A frozen base in fewer bits inside a network that is compiled: it learns as without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.app.runs import run
from tests.faults.conftest import FULL
from tests.house.source import ROOT
from tests.methods.test_base_precision import FAST, WIDE
from tests.methods.test_lora_runs import step

STEPS = 2
LORA = ("method=lora", "method.rank=4", "optimizer=adamw", "optimizer.lr=0.01")
CASES = {
    # whose teacher is the same compiled network with the adapter switched off
    "few": (*LORA, "method=few_step_lora", "sampler.steps=8", "method.base_precision=int8"),
}
if FULL:
    CASES |= {name: (*LORA, f"method.base_precision={name}") for name in ("fp8", "int8", "int4")}


def train(folder: str) -> None:
    """Each case plain and compiled, in a process whose functions no type checker has wrapped."""
    compiled = nn.Module.compile

    def traced(self: nn.Module) -> None:
        print("compiled", flush=True)
        compiled(self, backend="eager")  # generating code takes a minute; the graph is what counts

    nn.Module.compile = traced
    root = Path(folder)
    run("train", root, *WIDE, *FAST, "run=base", "steps=1")
    for name, words in CASES.items():
        for chosen in ("false", "true"):
            more = (f"init='{root}/outputs/base'", f"steps={STEPS}", f"hardware.compile={chosen}")
            run("train", root, *WIDE, *FAST, *words, *more, f"run={name}_{chosen}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of all runs, and the output of the process."""
    folder = tmp_path_factory.mktemp("compiled")
    code = f"from tests.methods.test_compiled_packed_base import train; train({str(folder)!r})"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder, ended.stdout


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_on_a_packed_base_learns_the_same_compiled(trained, name):
    folder, output = trained
    assert output.count("compiled\n") == len(CASES)
    plain, compiled = (step(folder, f"{name}_{c}", STEPS) for c in ("false", "true"))
    early, late = plain.weights("raw"), compiled.weights("raw")
    assert early.keys() == late.keys() and all(".lora_" in key for key in late)
    assert compiled.config["base_precision"] == plain.config["base_precision"] is not None
    for key, value in early.items():
        torch.testing.assert_close(late[key], value, atol=2e-3, rtol=0)
