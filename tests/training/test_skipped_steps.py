"""Skipped steps: reported at log points, counted against two bounds, also after resumption."""

import functools
import json
import weakref

import pytest
import torch
from lightning.pytorch import Callback

from tests.faults.attacks import Attack
from tests.training.small_run import Small, same, skipped_lines
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import NumericsError
from tinyflux_pl.training import nonfinite_guard
from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
from tinyflux_pl.training.logged_metrics import LoggedMetrics
from tinyflux_pl.training.optimizers import MuonAdamW
from tinyflux_pl.training.replay_bundle import Replay, named_tensors
from tinyflux_pl.training.skipped_steps import SkippedSteps, Verdict
from tinyflux_pl.training.throughput import Throughput

NAN, INF = float("nan"), float("inf")
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec")


class At(Callback):
    """Does something in a hook."""

    def __init__(self, hook, do):
        setattr(self, hook, do)


def test_too_many_consecutive_rejections_stop_the_run_at_the_last_good_state(tmp_path):
    attack = Attack("gradient", NAN, set(range(3, 100)), look=lambda: run.bits())
    run = Small(tmp_path, 40, attacks=(attack,), max_consecutive=10)
    with pytest.raises(
        NumericsError, match="12 steps in a row were skipped, up to step 14"
    ) as error:
        run.run()
    assert run.module.step == 15, "the first log point after the eleventh"
    assert same(run.bits(), attack.before[0]) and "replay=" in str(error.value)
    content = json.loads((tmp_path / "replay_0000014" / "replay.json").read_text())
    assert content["found"]["step"] == 14 and not content["weights_moved_since"]
    assert (
        content["found"]["norm"] == "nan"
        and content["found"]["sample_ids"] == attack.sample_ids[11]
    )


@pytest.mark.parametrize("free_bytes", [4, 3])
def test_micro_batches_of_an_accumulated_step_are_kept_within_a_memory_bound(
    tmp_path, monkeypatch, free_bytes
):
    """They are on the device, whose memory is short; dropped ones are read again."""
    run = Small(
        tmp_path,
        20,
        attacks=(Attack("loss", NAN, set(range(3, 20)), micro_batch=3),),
        accumulation=4,
    )
    one = sum(t.nbytes for t in named_tensors(run.samples.__getitems__([0, 1, 2, 3])).values())
    monkeypatch.setattr(nonfinite_guard, "MAX_BATCH_BYTES", free_bytes * one)
    seen, kept = [], []

    def count(trainer, module, outputs, batch, _):
        seen.append(weakref.ref(batch))
        kept.append(sum(reference() is not None for reference in seen))

    run.trainer.callbacks.append(At("on_train_batch_end", count))
    with pytest.raises(NumericsError):
        run.run()
    assert max(kept[3::4]) == (4 if free_bytes == 4 else 1), "at the last micro-batch of a step"
    replay = Replay.read(tmp_path / "replay_0000014")
    assert replay.read_again == (free_bytes < 4) and not replay.moved
    ids = [i for batch in replay.batches for i in batch.sample_ids.tolist()]
    assert (
        ids
        == replay.verdict.sample_ids
        == [1000 + i for k in range(56, 60) for i in run.data.order.batch(k)]
    )


def test_the_permitted_number_of_consecutive_rejections_does_not_stop_the_run(tmp_path):
    run = Small(
        tmp_path, 20, attacks=(Attack("loss", INF, set(range(3, 13))),), max_consecutive=10
    ).run()
    assert float(run.guard.skipped) == 10 and run.module.step == 20


def test_too_many_recent_rejections_stop_the_run_and_report_changed_weights(tmp_path):
    attack = Attack("loss", NAN, {1, 4, 6, 8})
    with pytest.raises(NumericsError, match="4 of the last 1000"):
        Small(tmp_path, 30, attacks=(attack,), max_recent=3).run()
    content = json.loads((tmp_path / "replay_0000008" / "replay.json").read_text())
    assert content["weights_moved_since"] and content["found"]["sample_ids"] == attack.sample_ids[3]


def test_too_many_rejections_at_the_end_fail_the_run(tmp_path):
    with pytest.raises(NumericsError):
        Small(tmp_path, 14, attacks=(Attack("loss", NAN, set(range(2, 14))),), log_every=100).run()


@pytest.mark.parametrize("log_every", [0, 1000])
def test_without_log_points_rejections_still_stop_the_run_in_bounded_memory(tmp_path, log_every):
    run = Small(
        tmp_path, 200, attacks=(Attack("loss", NAN, set(range(70, 200))),), log_every=log_every
    )
    counts = []
    run.trainer.callbacks.append(
        At("on_train_batch_end", lambda *_: counts.append(len(run.guard._window)))
    )
    with pytest.raises(NumericsError, match="58 steps in a row"):
        run.run()
    assert run.module.step == 128 and max(counts) < 64


def test_no_checkpoint_is_deleted_while_every_step_is_rejected(tmp_path):
    """After weights exploded in an accepted step, only older checkpoints can be resumed."""

    class Explodes(MuonAdamW):
        def step(self, closure=None):
            super().step(closure)
            if run.module.step == 9:
                self.param_groups[-1]["params"][0].data.fill_(1e30)

    run = Small(tmp_path, 60, optimizer=Explodes)
    kept = CheckpointSchedule(tmp_path / "checkpoints", {}, run.average, 1, every_steps=1, keep=2)
    run.trainer.callbacks += [LoggedMetrics(5, Throughput()), kept]
    with pytest.raises(NumericsError):
        run.run()
    kept.on_exception(None, None, None)
    steps = [directory.read(path).step for path in directory.list_steps(tmp_path / "checkpoints")]
    assert steps == list(range(9, run.module.step)), "of the ninth step the weights are sound"
    again = Small(tmp_path / "sound", 20, attacks=(Attack("loss", NAN, {5}),), start=0)
    kept = CheckpointSchedule(
        tmp_path / "sound" / "checkpoints", {}, again.average, 1, every_steps=1, keep=2
    )
    again.trainer.callbacks += [LoggedMetrics(5, Throughput()), kept]
    again.run()
    assert len(directory.list_steps(tmp_path / "sound" / "checkpoints")) == 2, (
        "and then they go as before"
    )


def test_a_resumed_run_rejects_the_steps_of_an_uninterrupted_one(tmp_path):
    """Cut in a window, between two skips in a row, with the medians just known."""
    steps, stateless = {9, 12, 13, 14, 15}, functools.partial(torch.optim.SGD, lr=0.1)
    options = {
        "attacks": (Attack("gradient", INF, steps),),
        "max_consecutive": 3,
        "optimizer": stateless,
    }
    uninterrupted = Small(tmp_path / "whole", 24, **options)
    with pytest.raises(NumericsError) as one:
        uninterrupted.run()
    first = Small(tmp_path / "cut", 13, **options).run()
    kept = first.guard.state()
    assert (
        torch.load(saved(tmp_path / "state.pt", kept), weights_only=True)["record"]["consecutive"]
        == 1
    )
    second = Small(tmp_path / "cut", 24, start=13, net=first.net, **options)
    second.guard.restore(kept)
    with pytest.raises(NumericsError) as two:
        second.run()
    assert str(one.value).replace("whole", "cut") == str(two.value)
    assert (
        skipped_lines(tmp_path / "whole") == skipped_lines(tmp_path / "cut")
        and second.module.step == uninterrupted.module.step
    )
    assert same(
        [*uninterrupted.guard.state()["median"].values()],
        [*second.guard.state()["median"].values()],
    )
    assert float(uninterrupted.guard.skipped) == float(second.guard.skipped) == 5, (
        "as the log counts them"
    )


def saved(path, state):
    torch.save(state, path)
    return path


def test_a_run_resumed_after_a_stop_may_reject_as_many_steps_again(tmp_path):
    run = Small(tmp_path, 40, attacks=(Attack("loss", NAN, set(range(3, 100))),))
    with pytest.raises(NumericsError):
        run.run()
    assert (
        run.guard.state()["record"]["consecutive"] == 0
        and not run.guard.state()["record"]["excess"]
    )


def test_repeated_steps_are_listed_once(tmp_path):
    Small(tmp_path, 10, attacks=(Attack("loss", NAN, {2, 7, 8}),)).run()
    Small(tmp_path, 10, start=7, attacks=(Attack("loss", NAN, {8}),)).run()
    assert [line["step"] for line in skipped_lines(tmp_path)] == [2, 8]


def test_rejections_are_reported_at_log_points_with_at_most_sixteen_samples(tmp_path, caplog):
    Small(tmp_path, 10, batch_size=20, attacks=(Attack("loss", NAN, {1, 2, 3, 4, 6}),)).run()
    messages = [
        record.getMessage() for record in caplog.records if "skipped" in record.getMessage()
    ]
    assert len(messages) == 5 and messages[3].startswith("and 1 more steps were skipped")
    assert (
        messages[0].startswith("step 1 was skipped: loss is nan")
        and "Its 20 samples: 10" in messages[0]
    )
    assert messages[0].endswith(", ...") and messages[0].count(",") == 16


def test_earlier_rejections_are_reported_after_an_exception(tmp_path):
    class Breaks(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 4:
                raise ValueError("elsewhere")

    with pytest.raises(ValueError, match="elsewhere"):
        Small(tmp_path, 10, attacks=(Attack("loss", NAN, {1}), Breaks())).run()
    assert [line["step"] for line in skipped_lines(tmp_path)] == [1]


def test_rejections_outside_the_window_are_dropped(tmp_path):
    """One skip in 400 for ever is no reason to stop; the same number within a thousand steps is."""
    rare, dense = (
        SkippedSteps(tmp_path / f"{i}.jsonl", max_consecutive=10, max_recent=3) for i in range(2)
    )
    for step in range(6000):
        loss = NAN if step % 400 == 0 else 1.0
        rare.add([Verdict(step, [1], loss, 1.0, INF, INF)], write=False)
    assert not rare.excess and rare.recent == [5200, 5600]
    for step in range(0, 6000, 2):
        dense.add(
            [Verdict(step, [1], NAN if step in (1000, 1200, 1500, 1998) else 1.0, 1.0, INF, INF)],
            write=False,
        )
    assert dense.excess == "4 of the last 1000 steps were skipped, up to step 1998"


def test_verdicts_are_read_from_the_device_once(tmp_path):
    run = Small(tmp_path, 12, attacks=(Attack("loss", NAN, {2}),), max_recent=1, log_every=5).run()
    run.guard._read_verdicts()
    assert (
        run.guard.record.recent == [2]
        and run.guard._window == []
        and len(skipped_lines(tmp_path)) == 1
    )
