"""The arms of a sweep: jobs that differ only in their seed, compared seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflux_pl.core.errors import ConfigError, DataError
from tinyflux_pl.report.curve import Curve
from tinyflux_pl.report.pictures import evenly
from tinyflux_pl.report.sweep_files import Job, SweepFiles
from tinyflux_pl.statistics.bootstrap import mean_interval
from tinyflux_pl.statistics.learning_curve import (
    Crossing,
    area_under_curve,
    median_crossing,
    steps_to_threshold,
)
from tinyflux_pl.statistics.paired import PairedDifference, paired_difference

SEED = "seed"
VALIDATION = "validation/loss"
MAX_POINTS = 120  # steps of a band
BAND_RESAMPLES = 1000


@dataclass(frozen=True)
class Arm:
    """Jobs of equal overrides; `label` are those in which the arms differ."""

    label: str
    jobs: tuple[Job, ...]

    def by_seed(self, name: str) -> dict[int, float]:
        """Seed -> a finite result."""
        values = {j.seed: j.result(name) for j in self.jobs if j.seed is not None}
        return {s: v for s, v in values.items() if v is not None and math.isfinite(v)}

    def areas(self) -> dict[int, float]:
        """Seed -> mean height of the validation loss over the steps."""
        return {
            job.seed: area_under_curve(curve.steps, curve.values)
            for job in self.jobs
            if job.seed is not None and (curve := job.run.curves.get(VALIDATION)) and len(curve) > 1
        }

    def crossings(self, threshold: float) -> list[Crossing]:
        """The step of each job at which its validation loss reaches a threshold."""
        curves = (job.run.curves.get(VALIDATION) for job in self.jobs)
        return [steps_to_threshold(c.steps, c.values, threshold) for c in curves if c and len(c)]


def arms_of(sweep: SweepFiles) -> list[Arm]:
    """The arms in the order of their first job."""
    keys = [key for key in sweep.swept if key != SEED]
    jobs: dict[tuple[str | None, ...], list[Job]] = {}
    for job in sweep.jobs:
        jobs.setdefault(tuple(job.overrides.get(key) for key in keys), []).append(job)
    return [Arm(_label(keys, values), tuple(group)) for values, group in jobs.items()]


def baseline_index(arms: Sequence[Arm], words: str | None) -> int:
    """The index of the arm with these overrides; ConfigError if none or several match."""
    if words is None:
        return 0
    fitting = [i for i, arm in enumerate(arms) if words == arm.label]
    fitting = fitting or [i for i, arm in enumerate(arms) if words in arm.label]
    if len(fitting) != 1:
        what = f"{len(fitting)} arms fit {words!r}"
        labels = "; ".join(arm.label for arm in arms)
        raise ConfigError(what, where="--baseline", cure=f"name one of: {labels}")
    return fitting[0]


def band(arm: Arm, metric: str) -> dict[str, Any]:
    """Plain data of the mean over seeds and its interval, at the steps that every seed logged."""
    curves = [c for job in arm.jobs if (c := job.run.curves.get(metric)) and len(c)]
    if not curves:
        return {}
    steps = set(curves[0].steps.tolist()).intersection(*(c.steps.tolist() for c in curves[1:]))
    chosen = evenly(sorted(steps), MAX_POINTS)
    means, lows, highs = [], [], []
    for step in chosen:
        values = np.array([_at(curve, step) for curve in curves])
        means.append(_rounded(values.mean()))
        if len(values) > 1:
            interval = mean_interval(values, resamples=BAND_RESAMPLES)
            lows.append(_rounded(interval.low))
            highs.append(_rounded(interval.high))
    count = f"{len(curves)} seed{'s' if len(curves) != 1 else ''}"
    plain = {"name": f"{arm.label} ({count})", "x": chosen, "y": means}
    return {**plain, "low": lows, "high": highs} if lows else plain


def difference(baseline: Mapping[int, float], arm: Mapping[int, float]) -> PairedDifference | str:
    """Arm minus baseline over the seeds that both have, or the reason why there is none."""
    try:
        return paired_difference(baseline, arm, common=True)
    except DataError as error:
        return error.what


def reached(arm: Arm, threshold: float) -> tuple[float | None, int, int]:
    """The median step to a threshold (None if censored), the runs that reached it, and all runs."""
    crossings = arm.crossings(threshold)
    if not crossings:
        return None, 0, 0
    return median_crossing(crossings), sum(not c.censored for c in crossings), len(crossings)


def _label(keys: Sequence[str], values: Sequence[str | None]) -> str:
    words = [f"{k}={v}" if v is not None else f"no {k}" for k, v in zip(keys, values, strict=True)]
    return ", ".join(words) or "all jobs"


def _at(curve: Curve, step: float) -> float:
    value = curve.at(step)
    assert value is not None, "a step that every curve has"
    return value


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
