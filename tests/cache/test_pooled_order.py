"""Batches of one shape in which every row is drawn as often as its repeats say."""

from collections import Counter
from itertools import pairwise

import pytest

from tinyflux_pl.cache.pooled_order import PooledOrder, pools_of
from tinyflux_pl.cache.same_shape_order import sample_order

RUNS = [(range(0, 9), "wide"), (range(9, 10), "tall"), (range(10, 23), "square")]
SHAPE = {row: shape for rows, shape in RUNS for row in rows}


def plain(batch_size=4, seed=0, repeats=None, weights=None):
    rates = None if repeats is None else (repeats, weights or [1.0] * 23)
    return sample_order([RUNS], batch_size, seed, None, [rates])


def test_each_batch_holds_one_shape_and_each_row_is_drawn_equally_often():
    batches = [plain().batch(step) for step in range(23)]
    assert all(len({SHAPE[i] for i in batch}) == 1 for batch in batches)
    assert Counter(i for batch in batches for i in batch) == dict.fromkeys(range(23), 4)
    assert plain().steps_per_epoch == 6


def test_shapes_are_spread_evenly_over_the_steps():
    where = [k for k in range(230) if plain().batch(k)[0] in range(0, 9)]
    gaps = [b - a for a, b in pairwise(where)]
    assert max(gaps) <= 4 and len(where) == 90


def test_repeats_are_exact_and_weights_are_proportional():
    repeats = [3] * 9 + [1] * 14
    order = plain(repeats=repeats)
    drawn = Counter(i for step in range(sum(repeats)) for i in order.batch(step))
    assert drawn == {i: 4 * repeats[i] for i in range(23)}
    weights = [1.0] * 10 + [0.5] * 6 + [2.0] * 7
    drawn = Counter(
        i for s in range(4096) for i in plain(repeats=[1] * 23, weights=weights).batch(s)
    )
    assert len(drawn) == 23
    light = sum(drawn[i] for i in range(10, 16)) / 6
    heavy = sum(drawn[i] for i in range(16, 23)) / 7
    one = sum(drawn[i] for i in range(9)) / 9
    assert heavy / light == pytest.approx(4, rel=0.02) and one / light == pytest.approx(2, rel=0.02)


def test_a_batch_is_a_function_of_seed_and_step_and_divides_among_ranks():
    forward = [plain().batch(step) for step in range(100)]
    again = plain()
    assert [again.batch(step) for step in (99, 3, 47)] == [forward[s] for s in (99, 3, 47)]
    assert [plain(seed=1).batch(step) for step in range(20)] != forward[:20]
    for step in (0, 5, 60):
        parts = [plain().rank_slice(step, rank, 2) for rank in (0, 1)]
        assert parts[0] + parts[1] == forward[step] and len(parts[0]) == len(parts[1]) == 2


def test_weights_of_sources_do_not_depend_on_frames_and_repeats():
    first = [(range(0, 4), "a"), (range(4, 8), "b")]
    second = [(range(8, 10), "a")]
    order = sample_order([first, second], 2, 0, [1.0, 3.0], [([2] * 8, [1.0] * 8), None])
    drawn = Counter(i >= 8 for step in range(4096) for i in order.batch(step))
    assert drawn[True] / drawn[False] == pytest.approx(3, rel=0.02)


def test_a_run_without_frames_and_rates_keeps_the_order_it_always_had():
    order = sample_order([[(range(0, 23), "a")]], 4, 0, None, [None])
    assert not isinstance(order, PooledOrder)
    assert [len(pool.rows) for pool in pools_of([(range(0, 3), "a")], [1, 2, 1], [1.0] * 3)] == [4]
