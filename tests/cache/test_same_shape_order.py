"""With sources of several shapes every batch has one shape and depends on (seed, step) alone."""

from collections import Counter

import pytest

from tinyflux_pl.cache.same_shape_order import SameShapeOrder, sample_order
from tinyflux_pl.cache.sample_order import SampleOrder

LENGTHS, SHAPES = [20, 7, 50], ["small", "small", "large"]
FIRST = [0, 20, 27]


def source_of(index):
    return max(k for k in range(3) if index >= FIRST[k])


def order(seed=0, batch_size=5):
    return SameShapeOrder(LENGTHS, batch_size, seed, [1.0, 2.0, 3.0], SHAPES)


def test_a_batch_never_mixes_shapes_and_source_weights_are_kept():
    batches = [order().batch(step) for step in range(600)]
    sources = [[source_of(i) for i in batch] for batch in batches]
    assert all(len({SHAPES[k] for k in batch}) == 1 for batch in sources)
    counts = Counter(k for batch in sources for k in batch)
    assert [counts[k] / 3000 for k in range(3)] == pytest.approx([1 / 6, 1 / 3, 1 / 2], abs=0.01)
    assert any(len(set(batch)) == 2 for batch in sources)  # sources of one shape do mix


def test_a_batch_depends_on_seed_and_step_alone():
    forward = [order().batch(step) for step in range(5000)]
    backwards = order()
    assert [backwards.batch(step) for step in (4999, 4097, 3, 77)] == [
        forward[step] for step in (4999, 4097, 3, 77)
    ]
    assert [order(seed=1).batch(step) for step in range(20)] != forward[:20]


def test_every_source_is_drawn_in_complete_epochs():
    stream = [i for step in range(800) for i in order().batch(step)]
    for k, length in enumerate(LENGTHS):
        drawn = [i for i in stream if source_of(i) == k]
        epochs = [drawn[e : e + length] for e in range(0, len(drawn) - length + 1, length)]
        assert len(epochs) > 5
        assert all(sorted(epoch) == list(range(FIRST[k], FIRST[k] + length)) for epoch in epochs)


def test_ranks_share_a_batch():
    batch = order(batch_size=6).batch(9)
    assert [i for rank in range(3) for i in order(batch_size=6).rank_slice(9, rank, 3)] == batch


def test_sources_of_equal_shape_keep_the_plain_order():
    plain = sample_order(
        [[(range(f, f + n), "small")] for f, n in zip(FIRST, LENGTHS, strict=True)],
        5,
        0,
        [1.0, 2.0, 3.0],
    )
    assert type(plain) is SampleOrder
    assert plain.batch(3) == SampleOrder(LENGTHS, 5, 0, [1.0, 2.0, 3.0]).batch(3)
