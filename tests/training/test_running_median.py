"""Running medians against Python's own, whatever is refused in between."""

import random
import statistics

import pytest
import torch

from tinyflux_pl.training.running_median import RunningMedian


@pytest.mark.parametrize("size", [1, 4, 7])
def test_limits_follow_the_last_accepted_values(size):
    draw, median, accepted = random.Random(size), RunningMedian(rows=2, size=size), ([], [])
    factors = torch.tensor([2.0, 3.0])
    for _ in range(40):
        limits = median.limits(factors, warmup=3).tolist()
        if len(accepted[0]) < 3:
            assert limits == [float("inf")] * 2
        else:
            expected = [
                statistics.median_low(row[-size:]) * f
                for row, f in zip(accepted, (2.0, 3.0), strict=True)
            ]
            assert limits == pytest.approx(expected)
        values, keep = (
            [draw.random(), draw.choice([draw.random(), float("nan"), 1e30])],
            draw.random() < 0.7,
        )
        keep = keep and values[1] < 1e9
        median.push(torch.tensor(values), torch.tensor(keep))
        if keep:
            for row, value in zip(accepted, values, strict=True):
                row.append(value)


def test_an_infinite_factor_sets_no_limit_even_for_a_median_of_zero():
    median = RunningMedian(rows=1)
    median.push(torch.zeros(1), torch.tensor(True))
    assert median.limits(torch.tensor([torch.inf]), warmup=1).tolist() == [torch.inf]


def test_a_restored_median_continues_equally():
    one, other = RunningMedian(rows=1, size=3), RunningMedian(rows=1, size=3)
    for value in (1.0, 5.0, 2.0, 4.0):
        one.push(torch.tensor([value]), torch.tensor(True))
    other.restore(one.state())
    for median in (one, other):
        median.push(torch.tensor([9.0]), torch.tensor(True))
    assert one.limits(torch.ones(1), 1).tolist() == other.limits(torch.ones(1), 1).tolist() == [4.0]
