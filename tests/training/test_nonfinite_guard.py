"""The guard: rejections, unchanged state, no synchronisation, and stopping."""

import functools
import math
import os
import socket
import traceback
from collections import Counter

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils._python_dispatch import TorchDispatchMode

from tests.faults.attacks import KINDS, Attack
from tests.faults.forks import Child
from tests.training.small_run import Samples, Small, same, skipped_lines
from tinyflux_pl.cache.sample_order import SampleOrder
from tinyflux_pl.core.errors import ConfigError, NumericsError
from tinyflux_pl.training.optimizers import MuonAdamW, adamw
from tinyflux_pl.training.replay_bundle import Replay

NAN, INF = float("nan"), float("inf")
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec")
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


class Watch(Callback):
    """Copies of everything after each step, and each step's samples and learning rate."""

    def __init__(self):
        self.run, self.bits, self.ids, self.rates = None, {}, {}, {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.ids.setdefault(pl_module.step, []).extend(batch.sample_ids.tolist())
        self.bits[pl_module.step] = self.run.bits()
        self.rates[pl_module.step] = [g["lr"] for g in trainer.optimizers[0].param_groups]


def watched(*args, attacks=(), **options):
    watch = Watch()
    run = Small(*args, attacks=(), **options)
    run.trainer.callbacks[:0] = attacks
    run.trainer.callbacks.append(watch)
    watch.run = run
    return run, watch


@pytest.mark.parametrize("optimizer", [MuonAdamW, adamw, SGD], ids=["muon", "adamw", "sgd"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_nonfinite_step_changes_nothing_and_is_reported(tmp_path, kind, value, optimizer):
    attack = Attack(kind, value, {0, 6})
    run, watch = watched(tmp_path, 8, attacks=(attack,), optimizer=optimizer)
    start = [p.detach().clone() for p in run.net.parameters()]
    run.run()
    assert same(watch.bits[1][: len(start)], start) and same(watch.bits[7], watch.bits[6])
    assert not same(watch.bits[6], watch.bits[5]) and not same(watch.bits[8], watch.bits[7])
    assert all(value.isfinite().all() for value in run.bits())
    skipped = skipped_lines(tmp_path)
    assert [line["step"] for line in skipped] == [0, 6] and float(run.guard.skipped) == 2
    assert [line["sample_ids"] for line in skipped] == attack.sample_ids and len(
        skipped[0]["sample_ids"]
    ) == 4
    reasons = " ".join(skipped[1]["reasons"])
    assert {"loss": "loss is", "gradient": "gradient is", "activation": "loss is"}[kind] in reasons
    if kind == "loss":
        assert "gradient" not in reasons and math.isfinite(skipped[1]["norm"])
    if kind == "gradient":
        assert "loss" not in reasons and math.isfinite(skipped[1]["loss"])


@pytest.mark.parametrize("kind", KINDS)
def test_one_nonfinite_micro_batch_rejects_the_step_and_lists_its_samples(tmp_path, kind):
    attack = Attack(kind, NAN, {2}, micro_batch=1)
    run, watch = watched(tmp_path, 4, attacks=(attack,), accumulation=3)
    run.run()
    assert same(watch.bits[3], watch.bits[2]) and not same(watch.bits[4], watch.bits[3])
    assert (
        skipped_lines(tmp_path)[0]["sample_ids"] == attack.sample_ids[0]
        and len(attack.sample_ids[0]) == 12
    )


def test_rejected_steps_advance_step_count_learning_rate_and_sample_order(tmp_path):
    spared, one = watched(tmp_path / "a", 9)
    attacked, two = watched(tmp_path / "b", 9, attacks=(Attack("loss", NAN, {2, 5}),))
    spared.run(), attacked.run()
    assert one.ids == two.ids and one.rates == two.rates and attacked.module.step == 9


def test_a_finite_run_is_bit_equal_with_and_without_guard(tmp_path):
    guarded, free = Small(tmp_path, 12).run(), Small(tmp_path, 12, guarded=False).run()
    assert same(guarded.bits(), free.bits()) and not (tmp_path / "skipped.jsonl").exists()


def test_a_hundredfold_batch_is_rejected_after_warm_up(tmp_path):
    samples = Samples()
    late = drawn_at(20)
    samples.scale[late] = 100.0
    run, watch = watched(tmp_path, 24, samples=samples)
    run.run()
    steps = [line["step"] for line in skipped_lines(tmp_path)]
    assert 20 in steps and all(
        set(late) & {i - 1000 for i in line["sample_ids"]} for line in skipped_lines(tmp_path)
    )
    assert same(watch.bits[21], watch.bits[20])
    assert "above" in skipped_lines(tmp_path)[0]["reasons"][0]
    assert float(run.guard.median.values.isfinite().sum()) == 2 * (24 - len(steps)), (
        "what is refused is no measure"
    )


def drawn_at(step):
    """The samples of a step of `Small`."""
    return SampleOrder([64], 4, 0).batch(step)


def test_no_limit_applies_during_warm_up_or_without_a_factor(tmp_path):
    for options in ({"warmup": 64}, {"loss_factor": None, "norm_factor": None}):
        samples = Samples()
        samples.scale[drawn_at(20)] = 100.0
        Small(tmp_path, 24, samples=samples, **options).run()
        assert not (tmp_path / "skipped.jsonl").exists()


# Operations that copy a value from the device to the host, and so wait for it.
WAITING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal.default",
    "unique",
)
STEPS = 7
# Of tensors on the host, which wait for nothing: a sample id a step, and torch's seed of a
# DataLoader.
HOST_READS = {
    ("tinyflux_pl.training.flow_module", "training_step"): STEPS,
    ("tinyflux_pl.training.datamodule", "__iter__"): 1,
}


class RecordedReads(TorchDispatchMode):
    """Number of reads of a tensor's value by each (module, function) of the package.

    The innermost frame of the package counts, whichever modules the step imports.
    """

    def __init__(self):
        super().__init__()
        self.reads = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(name in str(function) for name in WAITING):
            for frame, _ in traceback.walk_stack(None):
                module = frame.f_globals.get("__name__", "")
                if module.startswith("tinyflux_pl."):
                    self.reads[module, frame.f_code.co_name] += 1
                    break
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", [MuonAdamW, adamw, SGD], ids=["muon", "adamw", "sgd"])
def test_no_step_synchronises_with_the_device(tmp_path, monkeypatch, optimizer):
    reads = []
    target = "tinyflux_pl.training.nonfinite_guard.NonFiniteGuard._read_verdicts"
    monkeypatch.setattr(target, lambda *_: reads.append(1))
    run = Small(tmp_path, STEPS, attacks=(Attack("loss", NAN, {3}),), optimizer=optimizer)
    with RecordedReads() as recorded:
        run.run()
    assert len(reads) == 2, "one log point at step 5, and the end"
    # SGD is not fused: skip_step_if documents that the host waits.
    unfused = {("tinyflux_pl.training.optimizers", "skip_step_if"): STEPS}
    assert recorded.reads == (HOST_READS | unfused if optimizer is SGD else HOST_READS)


def test_factors_of_one_and_lbfgs_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="half of all steps"):
        Small(tmp_path, 2, norm_factor=1.0)
    with pytest.raises(ConfigError, match="LBFGS"):
        Small(tmp_path, 2, optimizer=torch.optim.LBFGS).run()


def test_a_nonfinite_loss_on_one_rank_is_rejected_and_reported_by_both(tmp_path):
    """Two ranks of two samples each; the second one's loss is nonfinite in steps 3 and 4."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    class SecondRank(Attack):  # a loss with finite gradients, which tell the other rank nothing
        def on_train_batch_start(self, trainer, *args):
            if trainer.global_rank == 1:
                super().on_train_batch_start(trainer, *args)

    def rank(number):
        reports = {
            "RANK": number,
            "LOCAL_RANK": number,
            "WORLD_SIZE": 2,
            "LOCAL_WORLD_SIZE": 2,
            "GROUP_RANK": 0,
        }
        os.environ.update(
            {k: str(v) for k, v in reports.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=port
        )
        os.environ["TORCHELASTIC_RUN_ID"] = "guard"
        run = Small(
            tmp_path, 20, ranks=2, attacks=(SecondRank("loss", NAN, {3, 4}),), max_consecutive=1
        )
        with pytest.raises(NumericsError, match="2 steps in a row were skipped, up to step 4"):
            run.run()
        assert run.module.step == 5 and all(value.isfinite().all() for value in run.bits())
        assert run.guard.record.last.sample_ids == [1000 + i for i in run.data.order.batch(4)]
        torch.save(run.bits(), tmp_path / f"{number}.pt")

    ranks = [Child(functools.partial(rank, i), tmp_path / f"{i}.log") for i in range(2)]
    for child in ranks:
        ended = child.wait(60)
        assert ended.code == 0, ended.printed[-3000:]
    one, other = (torch.load(tmp_path / f"{i}.pt", weights_only=True) for i in range(2))
    assert same(one, other)
    replay = Replay.read(tmp_path / "replay_0000004")
    assert (
        [len(batch) for batch in replay.batches] == [2, 2]
        and replay.read_again
        and len(skipped_lines(tmp_path)) == 2
    )
