"""Images a second: loading, transfer and step by the wall clock, and nothing that is done aside."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from tests.training.small_run import Samples, Small
from tinyflux_pl.training import throughput as timed
from tinyflux_pl.training.checkpoint_schedule import CheckpointSchedule
from tinyflux_pl.training.logged_metrics import LoggedMetrics
from tinyflux_pl.training.periodic import Periodic
from tinyflux_pl.training.throughput import Throughput

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec")
LOAD, STEP, PREVIEW, SAVE = 3.0, 1.0, 100.0, 1000.0


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(timed, "time", clock)
    return clock


def test_throughput_includes_loading_and_excludes_previews_and_checkpoints(tmp_path, clock):
    def passing(seconds):
        def hook(*_):
            clock.now += seconds

        return hook

    class Slow(Samples):
        def __getitems__(self, indices):
            clock.now += LOAD
            return super().__getitems__(indices)

    step, preview, seen, rates, throughput = Callback(), Periodic(2), Callback(), [], Throughput()
    step.on_before_optimizer_step, preview.perform = passing(STEP), passing(PREVIEW)
    checkpoints = CheckpointSchedule(tmp_path / "checkpoints", {}, None, 1, every_steps=2)
    checkpoints.save = passing(SAVE)
    logged = LoggedMetrics(2, throughput)
    seen.on_train_batch_end = lambda *_: rates.append(logged.latest.get("train/images_per_second"))
    small = Small(tmp_path, 4, samples=Slow(), batch_size=4, guarded=False, attacks=(step,))
    small.trainer.callbacks += [throughput, logged, checkpoints, preview, seen]
    small.run()
    assert rates[1::2] == pytest.approx([8 / (2 * STEP + LOAD), 8 / (2 * STEP + 2 * LOAD)]), (
        "from the first batch on"
    )
    assert throughput.images_per_second == pytest.approx(16 / (4 * STEP + 3 * LOAD))


def test_pending_gpu_work_counts_as_training_time(monkeypatch, clock):
    def synchronize(_):
        clock.now += 5

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    throughput, trainer = Throughput(), SimpleNamespace(world_size=2)
    throughput.on_train_start(trainer, SimpleNamespace(device=torch.device("cuda")))
    throughput.on_train_batch_start()
    throughput.on_train_batch_end(trainer, None, None, range(10), 0)
    with throughput.paused(), throughput.paused():
        clock.now += 100
    assert throughput.seconds == 5 and throughput.images_per_second == 20 / 5


def test_throughput_before_training_is_zero():
    assert Throughput().images_per_second == 0.0
