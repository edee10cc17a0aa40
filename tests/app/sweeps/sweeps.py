"""Sweeps of the smallest trainings through the real command line, for tests."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.app.runs import SMALLEST

ROOT = Path(__file__).resolve().parents[3]
QUICK = (
    "debug=fast",
    *SMALLEST,
    "steps=2",
    "schedule.warmup_steps=0",
    "data.sources.shapes.train.count=16",
    "data.sources.shapes.validation.count=8",
    "data.evaluation_prompts=1",
    "callbacks.preview.count=1",
    "callbacks.preview.every_steps=0",
    "callbacks.checkpoint.every_steps=0",
    "hardware.accelerator=cpu",
    "preflight=false",
    "run=test",
)


def line(root: Path, *words: str) -> list[str]:
    """The words of a sweep whose files lie below `root`."""
    return [sys.executable, str(ROOT / "train.py"), *QUICK, f"paths.root={root}", *words]


def run(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a sweep to its end."""
    return subprocess.run(
        line(root, *words),
        capture_output=True,
        text=True,
        cwd=root,
        timeout=600,
        env={**os.environ, **environment},
    )


def folder(root: Path) -> Path:
    """The folder of the sweep."""
    return root / "outputs" / "sweep-test"


def table(root: Path) -> list[dict[str, Any]]:
    """The rows of sweep.csv."""
    with open(folder(root) / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))
