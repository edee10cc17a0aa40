"""Cached samples are served as ordered, trimmed fp32 batches; sources mix, experts may lack."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from tinyflux_pl.cache.dataset import DEVIATION, CachedDataset, collate
from tinyflux_pl.cache.mixture import Mixture
from tinyflux_pl.cache.same_shape_order import sample_order
from tinyflux_pl.cache.sample_order import OrderedBatchSampler, SampleOrder, StepRows
from tinyflux_pl.cache.store import CacheStore
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError, SpecMismatch, StaleCache
from tinyflux_pl.training.datamodule import batches_of_one_shape

CODEC, TEXT = {"name": "pixels"}, {"name": "hashed"}


def make(
    root, total, first=0, experts=(), masks=False, codec=CODEC, channels=4, buckets=(0.5,), side=2
):
    store = CacheStore.create(root, root.name, total, 3, {})
    store.begin_group("encodings", {"codec": codec, "text": TEXT, "root": str(root)})
    for k in range(store.shards):
        ids = torch.tensor([first + i for i in store.rows(k)])
        columns = {
            "latents": ids[:, None, None, None].expand(-1, channels, side, side).bfloat16(),
            "text.tokens": ids[:, None, None].expand(-1, 9, 5).half(),
            "text.mask": torch.arange(9) <= (ids % 4)[:, None],
            "text.pooled": ids[:, None].expand(-1, 6).half(),
            "sample_ids": ids,
        }
        if masks:
            columns["masks"] = torch.full((len(ids), side, side), 0.25).half()
        store.write_shard("encodings", k, columns, [f"caption {i}" for i in ids.tolist()])
    for name in experts:
        store.begin_group(name, {"teacher": "t", "buckets": list(buckets)})
        for k in range(store.shards):
            rows = torch.tensor([1.0 + first + i for i in store.rows(k)])
            store.write_shard(name, k, {"features": rows[:, None, None].expand(-1, 2, 3).half()})
    return store


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_step_draws_latents_from_their_posterior(tmp_path, in_memory):
    store = CacheStore.create(tmp_path, "toy", 3, 3, {})
    store.begin_group("encodings", {})
    deviation = torch.tensor([0.0, 0.5, 2.0])[:, None, None, None].expand(-1, 4, 8, 8)
    columns = {
        "latents": torch.ones(3, 4, 8, 8),
        DEVIATION: deviation,
        "text.tokens": torch.zeros(3, 2, 5),
        "text.mask": torch.ones(3, 2, dtype=torch.bool),
        "text.pooled": torch.zeros(3, 6),
        "sample_ids": torch.tensor([7, 8, 9]),
    }
    store.write_shard("encodings", 0, columns, ["a", "b", "c"])
    data = CachedDataset(store, in_memory=in_memory, seed=5)

    def at(step, rows=(0, 1, 2)):
        return data.__getitems__(StepRows(rows, step)).latents

    noise = rng.normal((4, 8, 8), 5, "posterior", [7, 8, 9], 11)
    assert torch.equal(at(11), 1 + deviation * noise)
    assert torch.equal(at(11)[[2, 0]], at(11, (2, 0))), "a sample's draw depends on no neighbour"
    assert torch.equal(at(12)[0], at(11)[0]) and not torch.equal(at(12)[1], at(11)[1])
    assert torch.equal(data.__getitems__([0, 1, 2]).latents, torch.ones(3, 4, 8, 8))


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_batch_holds_the_requested_samples_in_order(tmp_path, in_memory):
    data = CachedDataset(
        make(tmp_path, 8, experts=("lune",), masks=True), ("lune",), in_memory, dataset_id=3
    )
    indices = [6, 1, 1, 4]
    batch = data.__getitems__(indices)
    assert len(data) == 8 and len(batch) == 4 and batch.sample_ids.tolist() == indices
    assert (
        batch.captions == [f"caption {i}" for i in indices]
        and batch.dataset_ids.tolist() == [3] * 4
    )
    assert (
        batch.latents.dtype == batch.text.tokens.dtype == batch.text.pooled.dtype == torch.float32
    )
    assert batch.latents[:, 0, 0, 0].tolist() == batch.text.pooled[:, 0].tolist() == indices
    # longest is 3
    assert batch.text.tokens.shape == (4, 3, 5) and batch.text.mask.sum(1).tolist() == [3, 2, 2, 1]
    assert batch.experts["lune.features"][:, 0, 0].tolist() == [7.0, 2.0, 2.0, 5.0]
    assert batch.expert_present["lune"].all() and batch.masks.unique().tolist() == [0.25]
    assert data[5].captions == ["caption 5"]


def test_only_the_requested_groups_are_served(tmp_path):
    batch = CachedDataset(make(tmp_path, 4, experts=("lune", "sol")), ("sol",)).__getitems__([0])
    assert (
        set(batch.experts) == {"sol.features"}
        and set(batch.expert_present) == {"sol"}
        and batch.masks is None
    )


def test_an_unfinished_or_absent_group_is_refused(tmp_path):
    store = make(tmp_path, 8, experts=("lune",))
    with pytest.raises(StaleCache, match="'sol' lacks 3 of 3"):
        CachedDataset(store, ("sol",))
    (tmp_path / "lune" / "shard_00001.json").unlink()
    with pytest.raises(StaleCache, match="'lune' lacks 1 of 3"):
        CachedDataset(store, ("lune",))
    assert len(CachedDataset(store)) == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_serves_the_order_with_or_without_workers(tmp_path, workers):
    data = CachedDataset(make(tmp_path, 8, experts=("lune",)), ("lune",))
    order = SampleOrder([8], 4, seed=0)
    loader = DataLoader(
        data,
        batch_sampler=OrderedBatchSampler(order, 0, 4),
        collate_fn=collate,
        num_workers=workers,
    )
    assert [b.sample_ids.tolist() for b in loader] == [order.batch(s) for s in range(4)]


def test_a_pickled_dataset_carries_no_tensor_data(tmp_path):
    data = CachedDataset(make(tmp_path, 30, channels=2048), ())
    data.__getitems__(list(range(30)))
    copy = pickle.dumps(data)
    assert len(copy) < 50_000 and pickle.loads(copy)[29].sample_ids.tolist() == [29]


def test_a_mixture_joins_sources_and_marks_absent_experts(tmp_path):
    one = CachedDataset(make(tmp_path / "one", 5, experts=("lune",)), ("lune",))
    two = CachedDataset(make(tmp_path / "two", 4, first=100, masks=True), ())
    three = CachedDataset(
        make(tmp_path / "three", 2, first=200, experts=("lune", "sol")), ("lune", "sol")
    )
    mixture = Mixture({7: two, 2: one, 9: three}, weights={2: 1.0, 7: 2.0, 9: 1.0})
    assert (
        len(mixture) == 11 and mixture.lengths == [5, 4, 2] and mixture.weights == [1.0, 2.0, 1.0]
    )
    batch = mixture.__getitems__([8, 0, 10, 5, 4])
    assert batch.sample_ids.tolist() == [103, 0, 201, 100, 4]
    assert batch.dataset_ids.tolist() == [7, 2, 9, 7, 2]
    assert batch.captions == ["caption 103", "caption 0", "caption 201", "caption 100", "caption 4"]
    assert (
        batch.latents[:, 0, 0, 0].tolist()
        == torch.tensor([103, 0, 201, 100, 4]).bfloat16().tolist()
    )
    assert batch.text.mask.sum(1).tolist() == [4, 1, 2, 1, 1]
    assert batch.expert_present["lune"].tolist() == [False, True, True, False, True]
    assert batch.expert_present["sol"].tolist() == [False, False, True, False, False]
    assert batch.experts["lune.features"][:, 0, 0].tolist() == [0.0, 1.0, 202.0, 0.0, 5.0]
    assert batch.masks[:, 0, 0].tolist() == [0.25, 1.0, 1.0, 0.25, 1.0]
    alone = mixture.__getitems__([5])  # the same keys whatever sources a batch happens to have
    assert set(alone.experts) == set(batch.experts) and not alone.expert_present["lune"].any()
    order = SampleOrder(mixture.lengths, 8, 0, mixture.weights)
    ids = torch.cat([mixture.__getitems__(order.batch(s)).dataset_ids for s in range(50)])
    assert [(ids == i).sum().item() for i in (2, 7, 9)] == [100, 200, 100]


def test_sources_of_different_image_sizes_share_a_mixture_but_no_batch(tmp_path):
    small = CachedDataset(make(tmp_path / "small", 6, masks=True))
    large = CachedDataset(make(tmp_path / "large", 9, first=100, side=3))
    mixture = Mixture({0: small, 1: large})
    assert mixture.shape_of(5)[1:] == (2, 2) and mixture.shape_of(6)[1:] == (3, 3)
    order = sample_order(mixture.runs, 4, 0, [1.0, 3.0])
    batches = [mixture.__getitems__(order.batch(step)) for step in range(40)]
    assert sum(batch.latents.shape[-1] == 3 for batch in batches) == 30
    assert all(batch.masks.shape[1:] == batch.latents.shape[2:] for batch in batches)
    validation = batches_of_one_shape(mixture, 4)
    assert validation == [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9], [10, 11, 12, 13], [14]]


def test_incompatible_sources_are_refused_by_name(tmp_path):
    one = CachedDataset(make(tmp_path / "one", 2, experts=("lune",)), ("lune",))
    wide = CachedDataset(make(tmp_path / "wide", 2, channels=8))
    other = CachedDataset(make(tmp_path / "other", 2, codec={"name": "vae"}))
    knots = CachedDataset(make(tmp_path / "knots", 2, experts=("lune",), buckets=(0.4,)), ("lune",))
    with pytest.raises(SpecMismatch, match=r"1 \(one\) and 2 \(wide\) do not fit: latents"):
        Mixture({1: one, 2: wide})
    with pytest.raises(SpecMismatch, match=r"codec\.name"):
        Mixture({1: one, 2: other})
    with pytest.raises(SpecMismatch, match=r"lune: buckets"):
        Mixture({1: one, 2: knots})
    with pytest.raises(ConfigError, match="weights"):
        Mixture({1: one}, {1: 1.0, 2: 1.0})
