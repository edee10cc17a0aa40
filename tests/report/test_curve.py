"""Long, short and broken curves are drawn honestly."""

import numpy as np
import pytest

from tinyflux_pl.report.curve import BUCKETS, curve_of

NAN, INF = float("nan"), float("inf")


def test_a_peak_of_one_step_in_a_hundred_thousand_survives():
    values = np.zeros(100_000)
    values[61_803], values[12_345] = 9.0, -4.0
    reduced = curve_of("m", range(100_000), values.tolist()).reduced()
    assert len(reduced) <= 2 * BUCKETS + 2
    assert reduced.values.max() == 9.0 and reduced.values.min() == -4.0
    assert reduced.steps[reduced.values.argmax()] == 61_803
    assert (reduced.steps[0], reduced.steps[-1]) == (0, 99_999)
    assert (np.diff(reduced.steps) > 0).all()


def test_a_short_curve_is_not_thinned():
    curve = curve_of("m", [1, 2, 3], [0.1, 0.2, 0.3])
    assert curve.reduced() is curve


def test_unevenly_logged_steps_keep_every_interval():
    steps = [*range(1000), *range(10**6, 10**6 + 1000)]
    reduced = curve_of("m", steps, np.arange(2000.0).tolist()).reduced(10)
    assert reduced.steps[0] == 0 and reduced.steps[-1] == 10**6 + 999
    assert len(reduced) <= 22


def test_nonfinite_values_are_gaps_with_listed_steps():
    curve = curve_of("m", [1, 2, 3, 4], [1.0, NAN, INF, 2.0])
    assert curve.not_finite == (2, 3) and curve.last == 2.0
    assert curve.plain() == {"x": [1, 2, 3, 4], "y": [1.0, None, None, 2.0], "gaps": [2, 3]}


def test_a_curve_of_nonfinite_values_has_no_line_and_lists_their_steps():
    curve = curve_of("m", [5], [NAN])
    assert curve.last is None and curve.plain() == {"x": [5], "y": [None], "gaps": [5]}


def test_the_last_value_of_a_step_is_used():
    curve = curve_of("m", [3, 1, 1], [3.0, 1.0, 2.0])
    assert curve.steps.tolist() == [1, 3] and curve.values.tolist() == [2.0, 3.0]


def test_a_single_point_is_a_curve():
    curve = curve_of("m", [7], [0.5])
    assert curve.at(7) == 0.5 and curve.at(8) is None
    assert curve.plain()["y"] == [pytest.approx(0.5)]
