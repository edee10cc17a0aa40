"""Saved raw and averaged weights equal those of the uninterrupted run at that step."""

import pytest
import torch

from tests.faults.numbers import Elsewhere, FailsAt, Steps, differing, fitting
from tinyflux_pl.checkpoints import directory

STEPS = 14
INTERVALS = {"checkpoint": 4, "validation": 5, "preview": 7}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("averages")


def started(root, name, resumed=None):
    intervals = (f"callbacks.{part}.every_steps={n}" for part, n in INTERVALS.items())
    kept = "callbacks.checkpoint.every_epochs=1", "callbacks.checkpoint.keep=99"
    return fitting(root, name, f"steps={STEPS}", *intervals, *kept, resumed=resumed)


def at(fit, name):
    """Weights of a checkpoint of the run, under the names of `bits`."""
    checkpoint = directory.read(fit.run_dir / "checkpoints" / name)
    weights = {f"raw.{k}": v for k, v in checkpoint.weights("raw").items()}
    return checkpoint, weights | {
        f"averaged.{k}": v for k, v in checkpoint.weights("averaged").items()
    }


def saving_within(fit, hook):
    """The same call, in the middle of which the run is saved."""

    def saving(*args, **options):
        fit.callbacks.checkpoints.save_now(fit.trainer, fit.trainable.module)
        return hook(*args, **options)

    return saving


def fails(*_, **__):
    raise Elsewhere


def moments(root):
    """(moment, step, what was saved)."""
    fit = started(root, "whole_with_saves")
    fit.callbacks.validation.grid.errors = saving_within(fit, fit.callbacks.validation.grid.errors)
    fit.callbacks.sampler.images = saving_within(fit, fit.callbacks.sampler.images)
    fit.fit()
    yield "an interval", 4, at(fit, "step_0000004")[1]
    yield "an epoch", 12, at(fit, "epoch_00002")[1]
    yield "the end", STEPS, at(fit, f"step_{STEPS:07d}")[1]
    yield "within a validation", 5, at(fit, "step_0000005")[1]
    yield "within a preview", 7, at(fit, "step_0000007")[1]

    fit = started(root, "cut")
    fit.trainer.callbacks.append(FailsAt(9, 1))
    with pytest.raises(Elsewhere):
        fit.fit()
    checkpoint, weights = at(fit, "step_0000009")
    yield "an error between two micro-batches", 9, weights

    fit = started(root, "cut", resumed=checkpoint)
    fit.callbacks.validation.grid.errors = fails
    with pytest.raises(Elsewhere):
        fit.fit()
    checkpoint, weights = at(fit, "step_0000010")
    yield "an error in a validation", 10, weights

    fit = started(root, "cut", resumed=checkpoint)
    fit.fit()
    yield "after resuming twice", STEPS, at(fit, f"step_{STEPS:07d}")[1]


@pytest.mark.filterwarnings("ignore")
def test_raw_and_averaged_weights_equal_those_of_an_uninterrupted_run(root, figure):
    fit = fitting(root, "whole", f"steps={STEPS}")
    uninterrupted = Steps(fit, set(range(STEPS + 1)))
    fit.fit()
    passed = tried = 0
    for moment, step, weights in moments(root):
        expected = {
            k: v for k, v in uninterrupted.bits[step].items() if k.startswith(("raw.", "averaged."))
        }
        differs = any(
            not torch.equal(weights[k], weights[k.replace("raw.", "averaged.")])
            for k in weights
            if k[:4] == "raw."
        )
        wrong = differing(expected, weights)
        if wrong or not differs:
            print(
                f"{moment}: {len(wrong)} tensors differ, such as {wrong[:3]}; raw and averaged are "
                f"apart: {differs}"
            )
        passed, tried = passed + (differs and not wrong), tried + 1
    figure(
        22,
        "raw and averaged weights saved at 8 moments",
        passed,
        tried,
        "against the bits of every step",
    )
