"""Steps to a threshold, with censored runs, and areas."""

import numpy as np
import pytest

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.statistics.learning_curve import (
    Crossing,
    area_under_curve,
    median_crossing,
    steps_to_threshold,
)

STEPS = np.array([100.0, 200.0, 400.0])


@pytest.mark.parametrize(
    ("threshold", "step"), [(0.75, 150.0), (0.5, 200.0), (0.45, 300.0), (2.0, 100.0)]
)
def test_the_first_crossing_is_interpolated(threshold, step):
    crossing = steps_to_threshold(STEPS, np.array([1.0, 0.5, 0.4]), threshold)
    assert crossing.step == pytest.approx(step) and not crossing.censored


def test_a_curve_that_falls_back_counts_from_its_first_crossing():
    values = np.array([0.0, 1.0, 0.2])
    assert steps_to_threshold(STEPS, values, 0.5, falling=False).step == 150.0


def test_a_run_that_never_reaches_the_threshold_is_censored_at_its_end():
    crossing = steps_to_threshold(STEPS, np.array([1.0, 0.5, 0.4]), 0.1)
    assert crossing == Crossing(None, 400.0) and crossing.censored


def test_the_median_ranks_censored_runs_last():
    early, late, never = Crossing(10.0, 99.0), Crossing(30.0, 99.0), Crossing(None, 99.0)
    assert median_crossing([early, late, never]) == 30.0
    assert median_crossing([early, never, never]) is None
    assert median_crossing([early, never]) is None


def test_the_area_is_the_mean_value_of_the_curve():
    assert area_under_curve(STEPS, np.array([1.0, 1.0, 1.0])) == 1.0
    assert area_under_curve(np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 2.0])) == pytest.approx(
        5 / 3
    )


@pytest.mark.parametrize(
    ("steps", "values", "words"),
    [
        ([1.0], [1.0], "it takes 2"),
        ([1.0, 1.0], [1.0, 2.0], "do not increase"),
        ([1.0, 2.0], [1.0, float("nan")], "not finite"),
    ],
)
def test_curves_without_an_area_are_refused(steps, values, words):
    with pytest.raises(DataError, match=words):
        area_under_curve(np.array(steps), np.array(values))
