"""Paired differences: the noise that seeds share cancels; what has no partner is refused."""

import numpy as np
import pytest

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.statistics.paired import paired_difference


def test_the_difference_is_second_minus_first_of_each_seed():
    difference = paired_difference({0: 1.0, 1: 2.0}, {1: 2.5, 0: 1.25})
    assert difference.seeds == (0, 1)
    assert difference.differences.tolist() == [0.25, 0.5]
    assert difference.interval.mean == 0.375
    assert (difference.interval.low, difference.interval.high) == (0.25, 0.5)


def test_noise_shared_by_paired_seeds_cancels():
    shared = np.random.default_rng(0).normal(size=8) * 10
    first = {s: float(value) for s, value in enumerate(shared)}
    second = {s: value + 1.0 for s, value in first.items()}
    interval = paired_difference(first, second).interval
    assert interval.low == pytest.approx(1) and interval.high == pytest.approx(1)


def test_a_paired_interval_covers_the_true_difference():
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        shared = generator.normal(size=15) * 5
        first = dict(enumerate(shared + generator.normal(size=15)))
        second = dict(enumerate(shared + 0.5 + generator.normal(size=15)))
        interval = paired_difference(first, second, resamples=400).interval
        covered += interval.low <= 0.5 <= interval.high
    assert 0.86 < covered / 200 < 0.99


def test_seeds_of_one_arm_alone_are_refused_by_name():
    with pytest.raises(DataError, match="one arm alone: 2, 3"):
        paired_difference({0: 1.0, 1: 1.0, 2: 1.0}, {0: 1.0, 1: 1.0, 3: 1.0})


def test_common_seeds_are_compared_on_request_and_unpaired_seeds_named():
    difference = paired_difference({0: 1.0, 1: 1.0, 2: 9.0}, {0: 2.0, 1: 2.0, 3: 9.0}, common=True)
    assert difference.unpaired == (2, 3) and difference.interval.mean == 1.0


@pytest.mark.parametrize(
    ("second", "words"), [({0: 1.0}, "1 common seed"), ({0: 1.0, 1: float("inf")}, "not finite")]
)
def test_too_few_or_nonfinite_pairs_are_refused(second, words):
    with pytest.raises(DataError, match=words):
        paired_difference({0: 1.0, 1: 1.0}, second, common=True)
