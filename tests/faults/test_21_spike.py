"""A batch a hundred times larger than usual is skipped, named, and has no later effect."""

import json
import statistics

import pytest
import torch
from lightning.pytorch import Callback

from tests.faults.conftest import times
from tests.faults.numbers import Elsewhere, FailsAt, Steps, bits, differing, fitting
from tinyflux_pl.checkpoints import directory

BAND = 20  # steps before the spike that say where the loss belongs


class Larger(Callback):
    """The latents of one step's batch, times a hundred."""

    def __init__(self, step):
        self.step, self.sample_ids = step, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.step == self.step:
            batch.latents.mul_(100)
            self.sample_ids += batch.sample_ids.tolist()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("spike")


def weights_are_kept(root, step, optimizer):
    fit = fitting(
        root,
        f"spike_{step}",
        f"steps={step + 6}",
        "hardware.accumulation=1",
        f"optimizer={optimizer}",
    )
    spike, steps = Larger(step), Steps(fit, {step, step + 1})
    fit.trainer.callbacks.insert(0, spike)
    fit.fit()
    lines = [json.loads(line) for line in (fit.run_dir / "skipped.jsonl").read_text().splitlines()]
    usual = [steps.losses[n] for n in range(step - BAND + 1, step + 1)]
    low, high = min(usual), max(usual)
    middle = statistics.median(usual)
    later = [steps.losses[n] for n in range(step + 2, step + 7)]
    return (
        steps.losses[step + 1] > 50 * middle
        and [(line["step"], line["sample_ids"]) for line in lines] == [(step, spike.sample_ids)]
        and "above" in lines[0]["reasons"][0]
        and not differing(steps.bits[step], steps.bits[step + 1])
        and all(low / 1.25 <= loss <= high * 1.25 for loss in later)
    )


@pytest.mark.filterwarnings("ignore")
def test_a_step_with_a_hundredfold_batch_is_skipped(root, figure):
    cases = [(40 + 5 * i, ("muon", "adamw")[i % 2]) for i in range(times(2, 10))]
    passed = sum(bool(weights_are_kept(root, *case)) for case in cases)
    figure(
        21,
        "batch scaled x100",
        passed,
        len(cases),
        "loss back in its band in each of the next 5 steps",
    )


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_remembers_usual_losses_and_skips_the_same_batch(root):
    """Interrupted two steps before the spike and right after it: state is in the checkpoints."""
    chosen = "steps=16", "hardware.accumulation=1", "callbacks.guard.warmup=8"
    uninterrupted = fitting(root, "whole", *chosen)
    uninterrupted.trainer.callbacks.insert(0, Larger(12))
    uninterrupted.fit()
    resumed = None
    for stop in (10, 13):
        part = fitting(root, "parts", *chosen, resumed=resumed)
        part.trainer.callbacks[:0] = [Larger(12), FailsAt(stop, 0)]
        with pytest.raises(Elsewhere):
            part.fit()
        resumed = directory.read(part.run_dir / "checkpoints" / f"step_{stop:07d}")
    end = fitting(root, "parts", *chosen, resumed=resumed)
    end.fit()
    assert not differing(bits(uninterrupted), bits(end))
    assert (uninterrupted.run_dir / "skipped.jsonl").read_bytes() == (
        end.run_dir / "skipped.jsonl"
    ).read_bytes()
    one, other = uninterrupted.trainable.guard.state(), end.trainable.guard.state()
    assert (
        torch.equal(one["median"]["values"], other["median"]["values"])
        and one["record"] == other["record"]
    )
    assert float(one["skipped"]) == float(other["skipped"]) == 1
