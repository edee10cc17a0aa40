"""One metric over steps, reduced for drawing without losing a peak."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BUCKETS = 400  # each leaves its smallest and its largest value: two a pixel of a narrow chart
MAX_NOT_FINITE = 200  # steps of such values that a page holds


@dataclass(frozen=True)
class Curve:
    """A metric: increasing steps, a finite value for each, and the steps without a finite value."""

    name: str
    steps: np.ndarray
    values: np.ndarray
    not_finite: tuple[int, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float | None:
        """The last finite value."""
        return float(self.values[-1]) if len(self) else None

    def at(self, step: float) -> float | None:
        """The value logged at a step."""
        index = int(np.searchsorted(self.steps, step))
        if index < len(self) and self.steps[index] == step:
            return float(self.values[index])
        return None

    def reduced(self, buckets: int = BUCKETS) -> Curve:
        """At most 2 * buckets points: the smallest and the largest of each equal span of steps.

        The first and the last point stay.
        """
        if len(self) <= 2 * buckets:
            return self
        first, last = self.steps[0], self.steps[-1]
        positions = (self.steps - first) * buckets / (last - first)
        bucket = np.minimum(positions.astype(np.int64), buckets - 1)
        starts = np.flatnonzero(np.diff(bucket, prepend=-1))
        ends = [*starts[1:], len(self)]
        rows = {0, len(self) - 1}
        for start, end in zip(starts, ends, strict=True):
            part = self.values[start:end]
            rows |= {int(start + part.argmin()), int(start + part.argmax())}
        selected = np.array(sorted(rows)[: 2 * buckets + 2])
        return Curve(self.name, self.steps[selected], self.values[selected], self.not_finite)

    def plain(self) -> dict[str, Any]:
        """Plain data for the page's script, with gaps where values were not finite."""
        curve = self.reduced()
        x = [_number(step) for step in curve.steps]
        y: list[float | None] = [_rounded(value) for value in curve.values]
        gaps = self.not_finite[:MAX_NOT_FINITE]
        points = sorted([*zip(x, y, strict=True), *((gap, None) for gap in gaps)], key=_step)
        return {"x": [p[0] for p in points], "y": [p[1] for p in points], "gaps": list(gaps)}


def curve_of(name: str, steps: Sequence[float], values: Sequence[float]) -> Curve:
    """A curve from rows in any order: the last value of a step counts."""
    finite: dict[float, float] = {}
    broken: dict[float, None] = {}
    for step, value in zip(steps, values, strict=True):
        if math.isfinite(value):
            finite[step] = value
            broken.pop(step, None)
        else:
            broken[step] = None
            finite.pop(step, None)
    order = sorted(finite)
    return Curve(
        name,
        np.array(order, dtype=np.float64),
        np.array([finite[step] for step in order], dtype=np.float64),
        tuple(int(step) for step in sorted(broken)),
    )


def _step(point: tuple[float, float | None]) -> float:
    return point[0]


def _number(step: float) -> float:
    return int(step) if step == int(step) else float(step)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
