"""Factors divided at each forward pass beside folded ones: python -m benchmarks folding.

    python -m benchmarks folding [--subjects tinyflux flux1] [--rounds 5]

Both draw in turns in one process, 8 Euler steps with the networks of `python -m benchmarks engine`;
figures are the least CPU seconds of each, since other jobs on a machine only add to them. Prints a
line for each network and format, and the load of the machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.engine_rows import FEW
from benchmarks.engine_subjects import Subject, subjects
from benchmarks.machine import machine
from tinyflux_pl.app.drawing.weight_calibration import shared_factors
from tinyflux_pl.engine.activation_record import recorded
from tinyflux_pl.engine.packing import linear_layers, pack


def factors_of(subject: Subject) -> dict[str, Tensor]:
    """SmoothQuant's, from one draw."""
    layers = linear_layers(subject.denoiser)
    with recorded(layers) as records:
        subject.ours(subject.settings(FEW))
    maxima = {name: torch.stack(record.maxima) for name, record in records.items()}
    return shared_factors(subject.denoiser, "smoothquant", layers, maxima)


def least_seconds(subject: Subject, precision: str, rounds: int) -> tuple[float, float]:
    """Least CPU seconds of a draw, with factors at run time and folded."""
    factors, draws = factors_of(subject), []
    for inputs in ((), subject.denoiser.divisible_inputs()):
        changed = subject.own_denoiser()
        pack(changed.denoiser, precision, factors, inputs=inputs)
        draws.append(partial(changed.ours, subject.settings(FEW)))
    taken: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for kept, draw in zip(taken, draws, strict=True):
            start = time.process_time()
            draw()
            if number:  # the first warms up
                kept.append(time.process_time() - start)
    return min(taken[0]), min(taken[1])


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks folding")
    parser.add_argument("--subjects", nargs="*", default=["tinyflux", "flux1"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for subject in subjects(options.subjects, Path(folder), None):
            for precision in ("int8", "int8_dynamic"):
                late, folded = least_seconds(subject, precision, options.rounds)
                figures = f"{late:.3f} s at run time, {folded:.3f} s folded, {late / folded:.3f}"
                print(
                    f"{subject.name} {precision}: {figures}; load {machine()['load']}", flush=True
                )
    return 0
