"""Steps and seconds to 90 % prompt accuracy: python -m benchmarks learning.

Trains two arms from nothing on data=shapes, each until its previews first reach the threshold: the
default recipe, and the original's (conf/experiment/original_recipe.yaml), which is cut off at a
multiple of the default's steps. Runs lie in outputs/ under benchmark_* and continue where they were
stopped. Writes benchmarks/results/learning.json; `ratio` is the original's steps over ours, a lower
bound where it was cut off.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import machine
from tinyflux_pl.core.files import write_json

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "learning.json"
ACCURACY, RATE = "preview/accuracy_all", "train/images_per_second"
BATCH = 32


@dataclass(frozen=True)
class Arm:
    """One recipe's way to the threshold; `reached` is None where it was cut off at `last` steps."""

    reached: int | None
    last: int
    best: float
    images_per_second: float

    @property
    def steps(self) -> int:
        """Steps to the threshold, or as many as were given to it."""
        return self.reached or self.last

    @property
    def seconds(self) -> float:
        """Seconds of training steps, without caches, previews and validation."""
        return self.steps * BATCH / self.images_per_second


def arm_of(metrics: Path, threshold: float) -> Arm:
    """What a run's metrics.csv says of its previews."""
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    points = [(int(row["step"]), float(row[ACCURACY])) for row in rows if row.get(ACCURACY)]
    rates = [float(row[RATE]) for row in rows if row.get(RATE)]
    reached = next((step for step, accuracy in points if accuracy >= threshold), None)
    best = max(accuracy for _, accuracy in points)
    return Arm(reached, int(rows[-1]["step"]), best, statistics.median(rates))


def train(name: str, steps: int, words: list[str], threshold: float) -> Path:
    """Train or continue one arm; its metrics.csv."""
    run = f"benchmark_{name}"
    line = ["model=tiny", "experts=lune_sol", *words, f"run={run}", f"steps={steps}", "resume=auto"]
    stop = [f"callbacks.early_stopping.monitor={ACCURACY}", "callbacks.early_stopping.mode=max"]
    stop += ["callbacks.early_stopping.patience=1000"]
    stop += [f"callbacks.early_stopping.stopping_threshold={threshold}"]
    every = ["callbacks.preview.every_steps=100", "callbacks.preview.count=128"]
    every += [f"hardware.batch_size={BATCH}", "data.evaluation_prompts=128", "report=false"]
    choice = "callbacks=[default,early_stopping]"
    command = [sys.executable, str(ROOT / "train.py"), *line, choice, *stop, *every]
    folder = ROOT / "outputs" / run
    if not (folder / "results.json").is_file():
        subprocess.run(command, check=True, cwd=ROOT)
    return folder / "csv" / "metrics.csv"


def main(arguments: list[str]) -> int:
    """Train both arms, print the table and write the result; 1 below the goal of 3."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks learning")
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--steps", type=int, default=1500, help="of the default recipe")
    parser.add_argument("--cut-off", type=float, default=10.0, help="times the default's steps")
    options, words = parser.parse_known_args(arguments)
    ours = arm_of(train("default", options.steps, words, options.threshold), options.threshold)
    limit = int(ours.steps * options.cut_off)
    recipe = ["experiment=original_recipe", *words]
    original = arm_of(train("original", limit, recipe, options.threshold), options.threshold)
    print(f"{'':10} {'steps':>8} {'seconds':>8} {'best':>7}")
    for name, arm in (("ours", ours), ("original", original)):
        mark = "" if arm.reached else "  cut off"
        print(f"{name:10} {arm.steps:8} {arm.seconds:8.0f} {arm.best:7.1%}{mark}")
    ratio = original.steps / ours.steps if ours.reached else 0.0
    result = {
        "ratio": ratio,
        "lower_bound": original.reached is None,
        "threshold": options.threshold,
        "ours": asdict(ours),
        "original": asdict(original),
        "words": words,
        "machine": machine(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    write_json(RESULT, result)
    print(f"ratio {ratio:.2f}, written: {RESULT}")
    return int(ratio < 3)
