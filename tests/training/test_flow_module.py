"""The module: gradient clipping, and the step protocol that callbacks rely on."""

import importlib
import inspect
import pkgutil

import pytest
import torch
from lightning.pytorch import Callback

import tinyflux_pl.training
from tests.training.small_run import Small
from tinyflux_pl.training.logged_metrics import LoggedMetrics
from tinyflux_pl.training.throughput import Throughput


def measured_and_applied_norm(folder, clip):
    """The gradient norm passed to the guard, and that left for the optimizer."""
    small = Small(folder, 1)
    small.module.clip = clip
    check_step, norms = small.guard.check_step, []

    def recorded(optimizer, norm, step):
        gradients = [p.grad for p in small.net.parameters()]
        norms.extend((float(norm), float(torch.nn.utils.get_total_norm(gradients))))
        check_step(optimizer, norm, step)

    small.guard.check_step = recorded
    small.run()
    return norms


def test_only_gradients_above_the_clip_norm_are_scaled(tmp_path):
    measured, applied = measured_and_applied_norm(tmp_path / "free", None)
    assert applied == pytest.approx(measured)
    assert measured > 0.1
    tight = measured_and_applied_norm(tmp_path / "tight", 0.01)
    assert tight == pytest.approx([measured, 0.01], rel=1e-4)
    wide = measured_and_applied_norm(tmp_path / "wide", 1e6)
    assert wide == pytest.approx([measured, measured])


class Recorder(Callback):
    """Records the module's state at each hook.

    Entries are (hook, step, step_complete, names of step_metrics).
    """

    def __init__(self, name, events):
        self.name, self.events = name, events

    def note(self, hook, module):
        event = (f"{hook} {self.name}".strip(), module.step, module.step_complete)
        self.events.append((*event, sorted(module.step_metrics)))

    def on_before_backward(self, trainer, pl_module, loss):
        self.note("backward", pl_module)

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.note("end", pl_module)


def test_hooks_see_the_documented_protocol_within_a_step(tmp_path):
    events = []
    small = Small(tmp_path, 1, accumulation=2)
    check_step = small.guard.check_step

    def recorded(optimizer, norm, step):
        Recorder("", events).note("check_step", small.module)
        check_step(optimizer, norm, step)

    small.guard.check_step = recorded
    first, last = Recorder("before", events), Recorder("after", events)
    last.on_before_backward = lambda *_: None
    metrics = LoggedMetrics(0, Throughput())
    small.trainer.callbacks[:] = [first, small.average, metrics, small.guard, last]
    small.run()
    terms, all_metrics = ["flow", "loss"], ["flow", "gradient_norm", "loss"]
    assert events == [
        ("backward before", 0, True, terms),
        ("end before", 0, True, terms),
        ("end after", 0, True, terms),
        ("backward before", 0, True, terms),
        ("check_step", 0, False, all_metrics),
        ("end before", 1, False, all_metrics),
        ("end after", 1, True, all_metrics),
    ]
    assert small.average.updates == 1


def test_a_rejected_step_counts_and_completes(tmp_path):
    small = Small(tmp_path, 2)
    small.guard.check_step = lambda optimizer, norm, step: reject(small.guard, optimizer)
    small.trainer.callbacks.insert(1, LoggedMetrics(0, Throughput()))
    start = [p.detach().clone() for p in small.net.parameters()]
    small.run()
    assert small.module.step == 2
    assert small.module.step_complete
    assert all(map(torch.equal, start, small.net.parameters()))


def reject(guard, optimizer):
    guard.step_accepted = torch.tensor(False)
    optimizer.found_inf = torch.tensor(1.0)


def test_every_training_hook_is_annotated_with_its_module_class():
    hooks = []
    for info in pkgutil.iter_modules(tinyflux_pl.training.__path__, "tinyflux_pl.training."):
        module = importlib.import_module(info.name)
        for owner in vars(module).values():
            if inspect.isclass(owner) and owner.__module__ == info.name:
                hooks += [
                    (owner.__name__, f) for f in vars(owner).values() if inspect.isfunction(f)
                ]
    annotations = {
        f"{owner}.{hook.__name__}": hook.__annotations__["pl_module"]
        for owner, hook in hooks
        if "pl_module" in inspect.signature(hook).parameters
    }
    assert len(annotations) > 40
    assert set(annotations.values()) == {"FlowModule"}
