"""The budget of a run: samples, steps, hours and bytes, from its configuration and a dry run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyflux_pl.app.fitting.denoiser_kind import QUICK_STEPS
from tinyflux_pl.app.memory.batch_sizes import Sizes
from tinyflux_pl.app.preflight.cache_needs import GroupNeed
from tinyflux_pl.app.preflight.disk_needs import DiskNeed, num_events
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.config.schema import Train


@dataclass
class Budget:
    """The figures of one run from step `start` on; `seconds` by kind of work."""

    samples: int
    validation_samples: int
    start: int
    steps: int
    batch_size: int
    sizes: Sizes
    images_per_second: float
    seconds: dict[str, float]
    memory: tuple[str, int]  # the largest stage, its bytes
    cache_bytes: int  # of existing caches
    writes: list[DiskNeed]

    @property
    def epochs(self) -> float:
        """Passes over the data, those before a resumption included."""
        return self.steps * self.batch_size / self.samples

    @property
    def hours(self) -> float:
        """Hours of the whole run."""
        return sum(self.seconds.values()) / 3600


def budget(
    config: Train,
    sizes: Sizes,
    start: int,
    dry_run: Any,
    caches: Sequence[GroupNeed],
    writes: list[DiskNeed],
    evaluated: int,
    extraction: float = 0.0,
) -> Budget:
    """The budget of a run whose final evaluation draws `evaluated` pictures.

    `extraction`: seconds that its caches still take.
    """
    seconds, callbacks, batch_size = dry_run.seconds, config.callbacks, config.hardware.batch_size
    samples = _num_samples(caches, "train")
    validation_samples = _num_samples(caches, "validation")
    micro_batch = seconds["loading"] + seconds["micro_batch"]
    step = sizes.accumulation * micro_batch + seconds["optimizer"]
    preview = seconds["preview"] * config.sampler["steps"] / QUICK_STEPS
    validated = min(validation_samples, callbacks.validation.samples or validation_samples)
    batches = -(-validated // sizes.micro_batch)
    if callbacks.validation.seen:
        batches += -(-min(samples, validated) // sizes.micro_batch)
    validation = batches * seconds["validation"]
    validations = num_events(start, config.steps, callbacks.validation.every_steps)
    previews = num_events(start, config.steps, callbacks.preview.every_steps)
    return Budget(
        samples=samples,
        validation_samples=validation_samples,
        start=start,
        steps=config.steps,
        batch_size=batch_size,
        sizes=sizes,
        images_per_second=batch_size / step,
        seconds={
            **({"caches": extraction} if extraction else {}),
            "training": (config.steps - start) * step,
            "validation": validations * validation,
            "previews": previews * preview,
            "evaluation": evaluated / len(dry_run.stages.preview.prompts) * preview,
        },
        memory=_largest_stage(dry_run),
        cache_bytes=sum(_bytes(need) for need in caches),
        writes=writes,
    )


def _largest_stage(dry_run: Any) -> tuple[str, int]:
    """The stage that needs the most memory, predicted or measured, and its bytes."""
    counts = {s.name: max(s.total, dry_run.measured[s.name] or 0) for s in dry_run.plan.stages}
    name = max(counts, key=counts.__getitem__)
    return name, counts[name]


def _num_samples(caches: Sequence[GroupNeed], split: str) -> int:
    return sum(need.total for need in caches if need.split == split and need.group == ENCODINGS)


def _bytes(need: GroupNeed) -> int:
    folder = need.store / need.group
    if not folder.is_dir():
        return 0
    return sum(file.stat().st_size for file in folder.glob("shard_*"))
