"""NaN and Inf in loss, gradient or activation: at step 1, step 50, within an accumulated step."""

import json

import pytest

from tests.faults.attacks import KINDS, Attack
from tests.faults.conftest import FULL
from tests.faults.numbers import Steps, differing, fitting

VALUES = (float("nan"), float("inf"))
# optimizer, micro-batches a step, the one that is attacked, attacked steps
PLAIN, ACCUMULATED = ("muon", 1, 0, (1, 50)), ("adamw", 2, 1, (3,))
CASES = [
    (kind, value, *division)
    for kind in KINDS
    for value in VALUES
    for division in (PLAIN, ACCUMULATED)
]
FEW = [CASES[i] for i in (1, 4, 6, 11)]  # every kind, both values and both places


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("not_finite")


def weights_are_kept(root, kind, value, optimizer, accumulation, micro_batch, attacked, *more):
    """In how many of the attacked steps one bad number left no trace but its line."""
    chosen = (
        f"steps={attacked[-1] + 2}",
        f"hardware.accumulation={accumulation}",
        f"optimizer={optimizer}",
    )
    fit = fitting(root, f"{kind}_{value}_{optimizer}", *chosen, *more)
    attack = Attack(kind, value, set(attacked), micro_batch)
    steps = Steps(fit, {step + i for step in attacked for i in range(3)})
    fit.trainer.callbacks.insert(0, attack)
    fit.fit()
    lines = [json.loads(line) for line in (fit.run_dir / "skipped.jsonl").read_text().splitlines()]
    named = [(line["step"], line["sample_ids"]) for line in lines]
    counted = float(fit.trainable.guard.skipped) == len(named) == len(attacked)
    passed = 0
    for i, step in enumerate(attacked):
        before, after, later = (steps.bits[n] for n in (step, step + 1, step + 2))
        passed += bool(
            counted
            and named[i] == (step, attack.sample_ids[i])
            and not differing(before, after)
            and all(tensor.isfinite().all() for tensor in later.values())
            and differing(after, later, "raw.")
            and differing(after, later, "averaged.")
        )
    return passed


@pytest.mark.filterwarnings("ignore")
def test_nonfinite_values_never_reach_weights_or_averages(root, figure):
    cases = CASES if FULL else FEW
    passed, tried = (
        sum(weights_are_kept(root, *case) for case in cases),
        sum(len(case[-1]) for case in cases),
    )
    figure(
        20,
        "NaN or Inf in loss, gradient, activation",
        passed,
        tried,
        "bits of weights, EMA and optimizer",
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "case", [("gradient", float("nan"), *ACCUMULATED), ("gradient", 1e30, "muon", 2, 1, (3,))]
)
def test_nonfinite_gradients_under_bf16_never_reach_the_weights(root, case):
    assert weights_are_kept(root, *case, "hardware.precision=bf16-mixed") == 1
