"""The sample order is a function of (seed, step), independent of ranks and resumption."""

from collections import Counter

import pytest
from torch.utils.data import DataLoader

from tinyflux_pl.cache.sample_order import OrderedBatchSampler, SampleOrder
from tinyflux_pl.core.errors import ConfigError


@pytest.mark.parametrize(
    ("lengths", "batch"), [([10], 4), ([7, 6], 5), ([3], 8), ([1], 1), ([16], 4)]
)
def test_an_epoch_contains_every_sample_once(lengths, batch):
    order, total = SampleOrder(lengths, batch, seed=3), sum(lengths)
    stream = [i for step in range(6 * total) for i in order.batch(step)]
    epochs = [stream[e * total : (e + 1) * total] for e in range(len(stream) // total)]
    assert len(epochs) >= 6 and all(sorted(e) == list(range(total)) for e in epochs)
    if total > 5:
        assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_depends_on_seed_and_step_alone():
    batches = [SampleOrder([11, 5], 4, seed=1).batch(step) for step in range(20)]
    backwards = SampleOrder([11, 5], 4, seed=1)
    assert [backwards.batch(step) for step in reversed(range(20))] == batches[::-1]
    assert [SampleOrder([11, 5], 4, seed=1).batch(s) for s in (19, 3)] == [batches[19], batches[3]]
    assert [SampleOrder([11, 5], 4, seed=2).batch(step) for step in range(20)] != batches


def test_the_stream_does_not_depend_on_the_batch_size():
    small, large = SampleOrder([10], 2, seed=0), SampleOrder([10], 6, seed=0)
    assert [i for s in range(30) for i in small.batch(s)] == [
        i for s in range(10) for i in large.batch(s)
    ]


def test_resuming_at_any_step_continues_the_same_sequence():
    order = SampleOrder([9], 4, seed=0)
    uninterrupted = list(OrderedBatchSampler(order, 0, 40))
    for cut in (1, 2, 9, 39):
        again = OrderedBatchSampler(SampleOrder([9], 4, seed=0), cut, 40)
        assert uninterrupted[:cut] + list(again) == uninterrupted and len(again) == 40 - cut


def test_ranks_share_the_same_global_batches():
    order = SampleOrder([9, 20], 12, seed=5)
    batches = list(OrderedBatchSampler(order, 0, 10))
    for world in (2, 3, 4):
        parts = [list(OrderedBatchSampler(order, 0, 10, rank, world)) for rank in range(world)]
        assert [[i for part in parts for i in part[step]] for step in range(10)] == batches
    with pytest.raises(ConfigError, match="does not divide"):
        order.rank_slice(0, 0, 5)


def test_source_weights_hold_in_every_interval_and_sources_keep_their_epochs():
    order = SampleOrder([100, 7, 30], 10, seed=0, weights=[1.0, 2.0, 7.0])
    stream = [i for step in range(2000) for i in order.batch(step)]
    sources = [0 if i < 100 else 1 if i < 107 else 2 for i in stream]
    for begin in range(0, 20000, 1000):
        counts = Counter(sources[begin : begin + 1000])
        assert abs(counts[0] - 100) <= 2 and abs(counts[1] - 200) <= 2 and abs(counts[2] - 700) <= 2
    for source, (first, length) in enumerate([(0, 100), (100, 7), (107, 30)]):
        drawn = [i - first for i, s in zip(stream, sources, strict=True) if s == source]
        epochs = [drawn[e : e + length] for e in range(0, len(drawn) - length + 1, length)]
        assert all(sorted(e) == list(range(length)) for e in epochs) and epochs[0] != epochs[1]
    assert (
        SampleOrder([100, 7, 30], 10, seed=0, weights=[1.0, 2.0, 7.0]).batch(1234)
        == stream[12340:12350]
    )
    # batches mix sources
    assert all(len({sources[s * 10 + j] for j in range(10)}) > 1 for s in range(2000))


@pytest.mark.parametrize(
    "weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, 1e-9]]
)
def test_invalid_weights_are_refused(weights):
    with pytest.raises(ConfigError):
        SampleOrder([5, 5], 2, 0, weights)


def test_steps_per_epoch_are_rounded_up():
    assert SampleOrder([10], 4, seed=0).steps_per_epoch == 3


def test_only_one_permutation_is_kept_in_memory():
    order = SampleOrder([8], 4, seed=0)
    for step in range(1000):
        order.batch(step)
    assert len(order._permutations) == 1


def test_ordered_batch_sampler_serves_a_data_loader():
    order = SampleOrder([10], 4, seed=0)
    batches = list(DataLoader(list(range(10)), batch_sampler=OrderedBatchSampler(order, 2, 6)))
    assert [b.tolist() for b in batches] == [order.batch(s) for s in range(2, 6)]
