"""A bundle gives back, to the bit, what was put in: every field of a batch, verdict, weights."""

from dataclasses import fields

import pytest
import torch

from tests.training.small_run import Net, Samples, null_text
from tinyflux_pl.core.types import Batch, TextEmbeddings
from tinyflux_pl.training.datamodule import CachedLatents
from tinyflux_pl.training.replay_bundle import Replay, ReplayBundle, load_batches
from tinyflux_pl.training.skipped_steps import Verdict

NAN, INF = float("nan"), float("inf")
VERDICT = Verdict(7, [2**62 + 1, 5], loss=NAN, norm=2.5, loss_limit=INF, norm_limit=2.0)


def full(seed):
    """A batch with every field there is."""
    g = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(2, *shape, generator=g)

    text = TextEmbeddings(random(3, 4), random(3) > 0, random(5))
    parts = {
        "latents": random(2, 2, 2).fill_(NAN),
        "sample_ids": torch.tensor([2**62 + 1, 5]),
        "dataset_ids": torch.tensor([0, 1]),
        "captions": ["a, [b]", "ü"],
        "experts": {"lune.features": random(3, 4), "sol.stats": random(3, 4)},
        "expert_present": {"lune": random() > 0, "sol": random() > 0},
        "masks": random(2, 2),
        "references": (random(2, 2, 2), random(2, 4, 2)),
        "inpaint": random(5, 2, 2),
        "size_ids": random(6),
        "target_ids": random(3, 2),
        "target_mask": random(3) > 0,
        "hint": random(2, 2, 2),
    }
    missing = {f.name for f in fields(Batch)} - parts.keys() - {"text", "step"}
    assert not missing, f"a bundle has to keep {missing} too"
    return Batch(text=text, **parts)


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(
            one.view(torch.uint8), other.view(torch.uint8)
        )
    if isinstance(one, Batch | TextEmbeddings):
        return all(equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.fixture
def bundle(tmp_path):
    return ReplayBundle(
        tmp_path, {"seed": 3, "objective": {"_target_": "x"}}, {"denoiser": {"name": "net"}}
    )


def test_a_bundle_round_trips_bit_equal(bundle):
    net, batches = Net(), [full(0), full(1)]
    bundle.write(net.state_dict(), null_text(), batches, VERDICT, moved=True, read_again=True)
    replay = Replay.read(bundle.folder(7))
    assert len(replay.batches) == 2 and all(map(equal, replay.batches, batches))
    assert (
        equal(replay.null_text, null_text())
        and replay.moved
        and replay.read_again
        and replay.config == bundle.config
    )
    assert replay.checkpoint.step == 7 and replay.checkpoint.config == bundle.description
    assert equal(replay.checkpoint.weights("raw"), dict(net.state_dict()))
    assert str(replay.verdict) == str(VERDICT)
    assert replay.verdict.norm_limit == 2.0
    assert replay.verdict.loss != VERDICT.loss


def test_a_batch_without_optional_fields_round_trips(bundle):
    batch = Samples().__getitems__([3, 1])
    bundle.write(Net().state_dict(), null_text(), [batch], VERDICT, moved=False, read_again=False)
    replay = Replay.read(bundle.folder(7))
    (batch_read,) = replay.batches
    assert not replay.moved and not replay.read_again
    assert equal(batch_read, batch) and batch_read.masks is None and batch_read.references == ()


def test_the_second_failure_at_a_step_replaces_the_first(bundle):
    for moved in (True, False):
        weights = {"w": torch.full((2,), float(moved))}
        bundle.write(weights, null_text(), [full(0)], VERDICT, moved=moved, read_again=False)
    replay = Replay.read(bundle.folder(7))
    assert not replay.moved and float(replay.checkpoint.weights("raw")["w"][0]) == 0.0


def test_reloaded_batches_equal_those_of_the_ranks():
    data = CachedLatents(Samples(), Samples(), 4, stop_step=9, accumulation=3)
    batches = load_batches(data, 2, accumulation=3, world=2)
    drawn = [data.order.rank_slice(i, rank, 2) for i in (6, 7, 8) for rank in (0, 1)]
    assert [batch.sample_ids.tolist() for batch in batches] == [
        [1000 + i for i in part] for part in drawn
    ]
