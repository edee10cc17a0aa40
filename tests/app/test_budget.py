"""The preflight's budget counts all the work of a run."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tinyflux_pl.app.memory.batch_sizes import Sizes
from tinyflux_pl.app.preflight.budget import budget
from tinyflux_pl.app.preflight.cache_needs import GroupNeed
from tinyflux_pl.cache.store import ENCODINGS

SECONDS = {"loading": 1.0, "micro_batch": 2.0, "optimizer": 3.0, "preview": 5.0, "validation": 7.0}


STAGES = [SimpleNamespace(name="step", total=9), SimpleNamespace(name="save", total=5)]


def budget_of(seen, train=1000, validation=64, samples=None, extraction=0.0, measured=(None, None)):
    def need(split, total):
        return GroupNeed("shapes", split, Path("nowhere"), ENCODINGS, total, 0, 0)

    periodic = SimpleNamespace(every_steps=50, seen=seen, samples=samples)
    config = SimpleNamespace(
        callbacks=SimpleNamespace(validation=periodic, preview=periodic),
        hardware=SimpleNamespace(batch_size=32),
        sampler={"steps": 20},
        steps=100,
    )
    dry_run = SimpleNamespace(
        seconds=SECONDS,
        stages=SimpleNamespace(preview=SimpleNamespace(prompts=["a"])),
        plan=SimpleNamespace(stages=STAGES),
        measured=dict(zip(("step", "save"), measured, strict=True)),
    )
    needs = [need("train", train), need("validation", validation)]
    return budget(config, Sizes(16, 16, 2, 1), 0, dry_run, needs, [], 0, extraction)


@pytest.mark.parametrize(
    ("seen", "train", "batches"), [(False, 1000, 4), (True, 1000, 8), (True, 20, 6)]
)
def test_validation_on_seen_samples_is_counted(seen, train, batches):
    assert budget_of(seen, train).seconds["validation"] == 2 * batches * SECONDS["validation"]


@pytest.mark.parametrize(("samples", "batches"), [(None, 8), (64, 8), (32, 4), (500, 8)])
def test_validation_counts_at_most_its_samples(samples, batches):
    spent = budget_of(True, samples=samples).seconds["validation"]
    assert spent == 2 * batches * SECONDS["validation"]


def test_extraction_is_a_part_of_the_time_where_there_is_any():
    assert budget_of(True, extraction=9.0).seconds["caches"] == 9.0
    assert "caches" not in budget_of(True).seconds


def test_a_step_is_its_micro_batches_and_its_optimizer():
    assert budget_of(False).seconds["training"] == 100 * (2 * (1.0 + 2.0) + 3.0)


@pytest.mark.parametrize(
    ("measured", "largest"),
    [
        ((None, None), ("step", 9)),
        ((8, 5), ("step", 9)),
        ((12, 5), ("step", 12)),
        ((8, 20), ("save", 20)),
    ],
)
def test_the_most_memory_is_no_less_than_what_was_measured(measured, largest):
    assert budget_of(True, measured=measured).memory == largest
