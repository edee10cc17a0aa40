"""Golden runs: record what small runs compute, then compare after a change that must not alter it.

    python benchmarks/golden_runs.py record golden     # before the change
    python benchmarks/golden_runs.py compare golden    # after it, on the same machine

`record` trains, resumes and samples small models of several kinds on one thread in fp32, and hashes
every tensor of caches and checkpoints, the losses and the pictures: of a straight path and of a
variance preserving one, by every solver that the path allows. `compare` does the same again and
prints the differences. Then it opens the recorded caches and checkpoints: the resumed run must end
on the recorded weights, and the sampled pictures must have the recorded pixels. Exit status 1 means
that something differs or is missing.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open

from tinyflux_pl.core.console_log import warnings_above_bars

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "hardware=cpu",
    "hardware.precision=32-true",
    "hardware.threads=1",
    "hardware.batch_size=8",
    "preflight=false",
    "logger=csv",
    "callbacks.checkpoint.every_steps=4",
)
PROMPTS = "data.evaluation_prompts=4"


def counts(source: str) -> tuple[str, ...]:
    """Overrides for a drawn dataset of 64 training and 32 validation pictures."""
    return (
        f"data.sources.{source}.train.count=64",
        f"data.sources.{source}.validation.count=32",
        PROMPTS,
    )


RUNS = {
    "shapes": ("model=tiny", "experts=lune_sol", "data=shapes", *counts("shapes")),
    "scenes": ("model=tiny", "data=scenes", "timesteps=stratified", *counts("scenes")),
    "digits": ("model=flux_core", "data=digits", PROMPTS),
    "halves": ("experiment=flux_core_digits", PROMPTS),
    "bars": ("model=flux_core", "data=bar_charts", "data.count=64", PROMPTS),
    "teacher": ("model=unet", "model.prediction=v", "path=vp", "data=shapes", *counts("shapes")),
}
RESUMED = "shapes"
VARIANCE_PRESERVING = "teacher"
SOLVERS = ("euler", "heun", "dpmpp_2m", "unipc")
# on a path whose first time holds no data at all it is refused
ANCESTRAL = "euler_ancestral"
STEPS = 6
MORE_STEPS = 4
PROMPT = "prompt=a large red circle in the centre"


def run_script(script: str, *arguments: str) -> None:
    """Run a script of the project; SystemExit with the end of its output if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{script} {' '.join(arguments)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )


def train(name: str, out: Path, steps: int, *more: str) -> None:
    """One small training run with its caches and outputs below `out`."""
    paths = (f"paths.outputs={out}/outputs", f"paths.cache={out}/cache", f"run={name}")
    run_script("train.py", *RUNS[name], *SMALL, *paths, f"steps={steps}", *more)


def sample(out: Path) -> None:
    """Two pictures by each solver from the resumed run's newest checkpoint, and from that of the
    variance preserving run, in out/sampled/RUN/SOLVER.
    """
    draw(out, RESUMED, SOLVERS)
    draw(out, VARIANCE_PRESERVING, (*SOLVERS, ANCESTRAL))


def draw(out: Path, run: str, solvers: Sequence[str]) -> None:
    """Two pictures by each solver from the newest checkpoint of a run."""
    newest = sorted((out / "outputs" / run / "checkpoints").iterdir())[-1]
    settings = (
        "n=2",
        "sampler.steps=4",
        "hardware=cpu",
        "hardware.precision=32-true",
        "hardware.threads=1",
    )
    for solver in solvers:
        folder = f"output={out}/sampled/{run}/{solver}"
        run_script(
            "generate.py",
            f"checkpoint={newest}",
            PROMPT,
            folder,
            f"sampler.solver={solver}",
            *settings,
        )


def digest(data: bytes) -> str:
    """The first 16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def tensor_hashes(file: Path) -> dict[str, str]:
    """A hash of dtype, shape and bytes for each tensor of a safetensors file."""
    hashes = {}
    with safe_open(file, "pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118 - a safetensors handle, not a mapping
            value = tensors.get_tensor(key).contiguous()
            header = f"{value.dtype} {tuple(value.shape)} ".encode()
            hashes[key] = digest(header + value.flatten().view(torch.uint8).numpy().tobytes())
    return hashes


def output_hashes(out: Path) -> dict[str, str]:
    """A hash for each tensor and picture, and the text of each loss, by relative path."""
    hashes = {}
    for file in sorted(out.rglob("*.safetensors")):
        hashes |= {
            f"{file.relative_to(out)}:{key}": value for key, value in tensor_hashes(file).items()
        }
    for file in sorted(out.rglob("*.png")):
        with Image.open(file) as image:
            hashes[str(file.relative_to(out))] = digest(image.tobytes())
    for file in sorted(out.rglob("metrics.csv")):
        for row in csv.DictReader(file.open()):
            losses = {
                key: value
                for key, value in row.items()
                if value and ("loss" in key or "flow" in key)
            }
            hashes |= {
                f"{file.relative_to(out)}:{row['step']}:{key}": value
                for key, value in losses.items()
            }
    return hashes


def run_all(out: Path) -> dict[str, str]:
    """Every run from nothing below `out`; the hashes of its outputs."""
    for name in RUNS:
        print(f"{name} ...", flush=True)
        train(name, out, STEPS)
    shutil.copytree(out / "outputs" / RESUMED, out / "outputs" / "before_resumption")
    train(RESUMED, out, STEPS + MORE_STEPS, "resume=auto")
    sample(out)
    return output_hashes(out)


def reopen(recorded: Path, out: Path) -> dict[str, str]:
    """The recorded run resumed from its recorded cache and checkpoint, and sampled from."""
    shutil.copytree(recorded / "cache", out / "cache")
    shutil.copytree(recorded / "outputs" / "before_resumption", out / "outputs" / RESUMED)
    times = {file: file.stat().st_mtime_ns for file in (out / "cache").rglob("*.safetensors")}
    shutil.copytree(
        recorded / "outputs" / VARIANCE_PRESERVING, out / "outputs" / VARIANCE_PRESERVING
    )
    train(RESUMED, out, STEPS + MORE_STEPS, "resume=auto")
    rewritten = [
        file for file, time in times.items() if not file.exists() or file.stat().st_mtime_ns != time
    ]
    if rewritten:
        raise SystemExit(f"the recorded cache was not accepted: {rewritten[0]} was written again")
    sample(out)
    return reopened(output_hashes(out))


def reopened(hashes: dict[str, str]) -> dict[str, str]:
    """The hashes of what `reopen` makes anew."""
    prefixes = (f"outputs/{RESUMED}/", "sampled/")
    return {key: value for key, value in hashes.items() if key.startswith(prefixes)}


def differences(expected: dict[str, str], actual: dict[str, str]) -> list[str]:
    """One line for each entry that is missing, new or different."""
    keys = sorted(expected.keys() | actual.keys())
    return [
        f"{key}: {expected.get(key)} -> {actual.get(key)}"
        for key in keys
        if expected.get(key) != actual.get(key)
    ]


def compare(folder: Path, expected: dict[str, str]) -> int:
    """Run everything again, then reopen what was recorded; how many entries differ."""
    total = 0
    stages: dict[str, Callable[[Path], dict[str, str]]] = {
        "again": run_all,
        "reopened": lambda out: reopen(folder / "recorded", out),
    }
    for stage, compute in stages.items():
        shutil.rmtree(folder / stage, ignore_errors=True)
        actual = compute(folder / stage)
        wanted = expected if stage == "again" else reopened(expected)
        lines = differences(wanted, actual)
        print(f"{stage}: {len(wanted)} hashes, {len(lines)} differ", *lines[:20], sep="\n")
        total += len(lines)
    return total


@warnings_above_bars()
def main() -> None:
    """Record or compare."""
    parser = argparse.ArgumentParser(
        description="Record small runs, or compare with recorded ones."
    )
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    file = folder / "hashes.json"
    if arguments.action == "compare":
        sys.exit(1 if compare(folder, json.loads(file.read_text())) else 0)
    if folder.exists():
        raise SystemExit(f"{folder} exists: choose another folder")
    hashes = run_all(folder / "recorded")
    file.write_text(json.dumps(hashes, indent=1, sort_keys=True))
    print(f"{len(hashes)} hashes in {file}")


if __name__ == "__main__":
    main()
