"""Bootstrap intervals: known answers, coverage by simulation, refusals."""

import numpy as np
import pytest

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.statistics.bootstrap import mean_interval, resampled_means


def test_all_resamples_of_two_values_are_enumerated():
    assert sorted(resampled_means(np.array([0.0, 2.0]))) == [0.0, 1.0, 1.0, 2.0]


def test_the_interval_of_two_values_is_their_range():
    interval = mean_interval(np.array([1.0, 3.0]))
    assert (interval.mean, interval.low, interval.high) == (2.0, 1.0, 3.0)


def test_an_interval_is_a_function_of_its_seed():
    values = np.random.default_rng(1).normal(size=12)
    first, again, other = (mean_interval(values, seed=s) for s in (0, 0, 1))
    assert first == again and first != other


def test_small_samples_are_enumerated_and_ignore_the_seed():
    values = np.array([0.2, 0.5, 0.1, 0.9])
    assert mean_interval(values, seed=0) == mean_interval(values, seed=9)


def test_bca_corrects_for_skew_and_the_percentile_interval_does_not():
    values = np.random.default_rng(3).exponential(size=25)
    plain, corrected = (mean_interval(values, method=m) for m in ("percentile", "bca"))
    assert corrected.high > plain.high and corrected.low > plain.low


def test_bca_agrees_with_percentiles_on_symmetric_values():
    values = np.concatenate([np.arange(1, 11), -np.arange(1, 11)]).astype(float)
    plain, corrected = (mean_interval(values, method=m) for m in ("percentile", "bca"))
    assert corrected.low == pytest.approx(plain.low, abs=0.1)
    assert corrected.high == pytest.approx(plain.high, abs=0.1)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_equal_values_have_a_zero_width_interval(method):
    interval = mean_interval(np.full(5, 0.25), method=method)
    assert interval.low == interval.high == 0.25


@pytest.mark.parametrize(("count", "least", "most"), [(3, 0.6, 0.88), (20, 0.88, 0.98)])
def test_coverage_is_nominal_for_many_seeds_and_lower_for_few(count, least, most):
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        interval = mean_interval(generator.normal(size=count), resamples=500)
        covered += interval.low <= 0 <= interval.high
    assert least < covered / 300 < most


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        ([1.0], {}, "1 value"),
        ([1.0, float("nan")], {}, "not finite"),
        ([1.0, 2.0], {"level": 95.0}, "level is 95"),
        ([1.0, 2.0], {"method": "normal"}, "no method"),
    ],
)
def test_too_few_or_nonfinite_values_are_refused(values, options, words):
    with pytest.raises(DataError, match=words):
        mean_interval(np.array(values), **options)
