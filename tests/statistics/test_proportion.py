"""Wilson's interval."""

import numpy as np
import pytest

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.statistics.proportion import share_interval


def test_wilson_interval_equals_newcombes_published_example():
    """Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263."""
    low, high = share_interval(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_zero_successes_have_an_interval_of_positive_width():
    low, high = share_interval(0.0, 20)
    assert (low, high) == pytest.approx((0, 0.1611), abs=1e-4)


def test_the_interval_covers_the_true_proportion():
    drawn = np.random.default_rng(0).binomial(64, 0.9, size=2000) / 64
    covered = [low <= 0.9 <= high for low, high in (share_interval(float(p), 64) for p in drawn)]
    assert 0.92 < np.mean(covered) < 0.98


@pytest.mark.parametrize(("share", "count"), [(1.1, 5), (0.5, 0), (float("nan"), 5)])
def test_impossible_proportions_and_counts_are_refused(share, count):
    with pytest.raises(DataError):
        share_interval(share, count)
