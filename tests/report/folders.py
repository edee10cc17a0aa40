"""Folders as runs and sweeps leave them, without training."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyflux_pl.sampling import described_sheet
from tinyflux_pl.sampling.grid import captioned_grid

CAPTIONS = ("a large red circle, top left", "a small <script>alert(1)</script> & cross")
CONFIG: dict[str, Any] = {
    "steps": 100,
    "seed": 0,
    "run": "demo",
    "data": {"name": "shapes", "evaluation_prompts": 64, "sources": {}},
    "experts": {},
    "hardware": {"batch_size": 8, "accelerator": "cpu"},
    "logger": {"csv": {"folder": "csv"}},
    "overrides": ["model=tiny", "run=demo", "schedule.note=<script>alert(2)</script>"],
    "from_step": 0,
}


def write_run(
    folder: Path,
    seed: int = 0,
    gain: float = 0.0,
    overrides: tuple[str, ...] = (),
    finished: bool = True,
    config: Mapping[str, Any] = (),  # type: ignore[assignment]
) -> Path:
    """A run of 100 steps whose loss falls, faster with `gain`; the same for the same seed."""
    folder.mkdir(parents=True)
    lines = [*CONFIG["overrides"], *overrides]
    written = {**CONFIG, "seed": seed, "overrides": lines, **dict(config)}
    (folder / "config.json").write_text(json.dumps(written))
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=101) * 0.02
    level = generator.normal() * 0.05
    rows = [_row(step, noise[step] + level, gain) for step in range(5, 101, 5)]
    write_csv(folder, rows)
    for step in (50, 100):
        write_sheet(folder, step)
    if finished:
        loss = rows[-1]["validation/loss"]
        (folder / "results.json").write_text(json.dumps(results(seed, loss)))
    return folder


def results(seed: int, loss: float) -> dict[str, Any]:
    """A results.json."""
    shares = {"all": max(0.0, min(1.0, 0.9 - loss)), "colour": 0.95, "shape": 0.9}
    return {
        "accuracies": {"shapes/train": shares, "shapes/held_out": shares},
        "prompt_accuracy": shares["all"], "prompt_accuracy_held_out": shares["all"],
        "validation_loss": loss, "seconds": 61.5, "images_per_second": 42.0, "steps": 100,
        "parameters": 2_435_771, "peak_memory_bytes": 3 * 2**28, "prompts": list(CAPTIONS),
        "seed": seed, "novelty": {}, "data": "shapes",
    }  # fmt: skip


def write_csv(folder: Path, rows: list[dict[str, float]]) -> Path:
    """csv/metrics.csv."""
    path = folder / "csv" / "metrics.csv"
    path.parent.mkdir(exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_sheet(folder: Path, step: int) -> None:
    """A preview of two pictures."""
    (folder / "samples").mkdir(exist_ok=True)
    images = torch.linspace(-1, step / 100, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
    path = folder / "samples" / f"step_{step:07d}.png"
    described_sheet.save(captioned_grid(images, CAPTIONS), path)


def write_sweep(folder: Path, seeds: int = 3, table: bool = True) -> Path:
    """Two arms, the second better by 0.1, and so many seeds."""
    arms = (("experts=none", 0.0), ("experts=lune_sol", 0.1))
    rows = []
    for number, (arm, gain, seed) in enumerate((a, g, s) for a, g in arms for s in range(seeds)):
        line = (arm, f"seed={seed}")
        write_run(folder / str(number), seed, gain, line)
        rows.append([number, "finished", " ".join(line), 61.5, f"outputs/sweep/{number}", ""])
    if table:
        with (folder / "sweep.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["number", "state", "overrides", "seconds", "folder", "error"])
            writer.writerows(rows)
    return folder


def _row(step: int, noise: float, gain: float) -> dict[str, float]:
    loss = 0.3 + math.exp(-step / 25) + noise - gain * step / 100
    row = {"step": step, "train/loss": loss + 0.1, "train/gradient_norm": 1.0 + noise}
    row |= {
        "train/flow": loss,
        "train/learning_rate_0": 1e-3,
        "train/images_per_second": 40 + noise,
    }
    if step % 10 == 0:
        row |= {"validation/loss": loss, "preview/accuracy_all": min(1.0, step / 120)}
        row |= {f"validation/loss_t_{t}": loss * (1 + t) for t in (0.1, 0.5, 0.9)}
    return row
