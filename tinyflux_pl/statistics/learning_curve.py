"""Figures of one learning curve: the step at which it reaches a threshold, and its area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tinyflux_pl.core.errors import DataError

Steps = Float[np.ndarray, " n"]
Values = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Crossing:
    """The step of a first crossing, or None for a curve that was censored: it ended at `last`."""

    step: float | None
    last: float

    @property
    def censored(self) -> bool:
        """True if the curve ended before it reached the threshold."""
        return self.step is None


def steps_to_threshold(
    steps: Steps, values: Values, threshold: float, falling: bool = True
) -> Crossing:
    """The first step at which a curve reaches `threshold` from above, or from below if not falling.

    Linear between two points; the first point itself if it is already there. DataError for steps
    that do not increase and for values that are not finite.
    """
    _check(steps, values, least=1)
    reached = values <= threshold if falling else values >= threshold
    last = float(steps[-1])
    if not reached.any():
        return Crossing(None, last)
    index = int(reached.argmax())
    if index == 0:
        return Crossing(float(steps[0]), last)
    share = (threshold - values[index - 1]) / (values[index] - values[index - 1])
    return Crossing(float(steps[index - 1] + share * (steps[index] - steps[index - 1])), last)


def median_crossing(crossings: Sequence[Crossing]) -> float | None:
    """The median step, censored runs later than any other; None where it is itself censored."""
    if not crossings:
        raise DataError("no curve", where="median_crossing", cure="give one or more")
    steps = [np.inf if crossing.step is None else crossing.step for crossing in crossings]
    middle = float(np.median(steps))
    return middle if np.isfinite(middle) else None


def area_under_curve(steps: Steps, values: Values) -> float:
    """The trapezoidal area under a curve, divided by the width: the curve's mean height.

    DataError for fewer than two points, steps that do not increase, values that are not finite.
    """
    _check(steps, values, least=2)
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))


def _check(steps: Steps, values: Values, least: int) -> None:
    where = "a learning curve"
    if len(steps) < least:
        what = f"{len(steps)} points; it takes {least}"
        raise DataError(what, where=where, cure="validate more often")
    if len(steps) != len(values):
        what = f"{len(steps)} steps and {len(values)} values"
        raise DataError(what, where=where, cure="give one value for each step")
    if not (np.diff(steps) > 0).all():
        raise DataError("steps that do not increase", where=where, cure="sort them, each once")
    if not (np.isfinite(values).all() and np.isfinite(steps).all()):
        raise DataError("values that are not finite", where=where, cure="leave those points out")
