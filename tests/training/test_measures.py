"""Measurements at log points, and one wait for the device for all of them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.training.small_run import Samples, Small
from tinyflux_pl.core import metric_names as names
from tinyflux_pl.training import data_wait as timed
from tinyflux_pl.training import measures
from tinyflux_pl.training.data_wait import DataWait
from tinyflux_pl.training.ema import AveragedWeights
from tinyflux_pl.training.logged_metrics import LoggedMetrics
from tinyflux_pl.training.measures import Window
from tinyflux_pl.training.throughput import Throughput


def test_ema_distance_is_relative_to_the_raw_weights():
    network, average = nn.Linear(3, 2), AveragedWeights()
    average.averages = {name: 1.5 * p.detach() for name, p in network.named_parameters()}
    assert float(average.distance(network)) == pytest.approx(0.5)


def test_gradient_norms_are_grouped_below_a_wrapper():
    net = nn.ModuleDict({"net": nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})})
    for value, parameter in enumerate(net.parameters()):
        parameter.grad = torch.full_like(parameter, float(value))
    norms = measures.module_gradient_norms(net)
    # a: four zeros and two ones; b: four twos and two threes
    assert {k: float(v) for k, v in norms.items()} == pytest.approx(
        {"a": 2**0.5, "b": (4 * 4 + 2 * 9) ** 0.5}
    )
    assert set(measures.module_gradient_norms(net["net"])) == {"a", "b"}


def test_waiting_time_is_the_time_until_each_batch_arrives(monkeypatch):
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(timed, "time", clock)

    def batches():
        for i in range(3):
            clock.now += 2.0
            yield i
        clock.now += 1.0

    wait = DataWait()
    measure = measures.waiting(wait)
    for _ in wait.timed(batches()):
        clock.now += 10.0
    assert wait.seconds == 3 * 2.0 + 1.0
    assert measure(None, Window(7, 0.0)) == {names.DATA_WAIT.pattern: 1.0}
    assert measure(None, Window(7, 0.0)) == {names.DATA_WAIT.pattern: 0.0}


def test_utilisation_is_flops_over_the_peak_of_all_ranks_and_flops_are_counted_once():
    counted = []
    measure = measures.Utilisation(100.0, lambda: counted.append(1) or 5.0)
    module = SimpleNamespace(trainer=SimpleNamespace(world_size=2))
    for rate, share in ((8.0, 0.2), (16.0, 0.4)):
        assert measure(module, Window(1, rate)) == {names.MFU.pattern: pytest.approx(share)}
    assert len(counted) == 1


@pytest.mark.filterwarnings("ignore:.*LeafSpec")
def test_the_device_is_read_once_per_log_point_and_never_between(tmp_path, monkeypatch):
    """On a GPU every read makes the host wait for all queued work."""
    average = AveragedWeights()
    reads: list[int] = []
    logged = LoggedMetrics(4, Throughput(), (measures.ema_distance(average),))
    small = Small(tmp_path, 8, samples=Samples(), guarded=False)
    small.average = average
    small.trainer.callbacks[:] = [average, logged]
    for name in ("tolist", "item", "__float__", "__bool__"):
        usual = getattr(torch.Tensor, name)

        def reading(tensor, *arguments, usual=usual):
            if logged.busy:
                reads.append(small.module.step)
            return usual(tensor, *arguments)

        monkeypatch.setattr(torch.Tensor, name, reading)
    usual_end, logged.busy = logged.on_train_batch_end, False

    def on_train_batch_end(*arguments):
        logged.busy = True
        usual_end(*arguments)
        logged.busy = False

    logged.on_train_batch_end = on_train_batch_end
    small.run()
    assert reads == [4, 8]
    assert names.EMA_DISTANCE.pattern in logged.latest
    assert small.trainer.callback_metrics["train/loss"] == pytest.approx(
        logged.latest["train/loss"]
    )
