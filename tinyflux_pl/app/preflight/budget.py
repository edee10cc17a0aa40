"""What a run will take: samples, steps, hours and bytes, from its configuration and a dry_run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinyflux_pl.app.batch_sizes import Sizes
from tinyflux_pl.app.preflight.cache_needs import GroupNeed
from tinyflux_pl.app.preflight.disk_needs import DiskNeed, times
from tinyflux_pl.app.preflight.dry_run_setup import PREVIEW_STEPS
from tinyflux_pl.cache.store import ENCODINGS
from tinyflux_pl.engine.memory_plan import Stage


@dataclass
class Budget:
    """The figures of one run, from step `start` on; seconds by what they are spent on."""

    samples: int
    validation_samples: int
    start: int
    steps: int
    batch_size: int
    sizes: Sizes
    images_per_second: float
    seconds: dict[str, float]
    memory: Stage  # the worst
    caches_there: int  # bytes
    writes: list[DiskNeed]

    @property
    def epochs(self) -> float:
        """Passes over the data, resumed ones too."""
        return self.steps * self.batch_size / self.samples

    @property
    def hours(self) -> float:
        """All of it."""
        return sum(self.seconds.values()) / 3600


def budget(
    config: dict[str, Any],
    sizes: Sizes,
    start: int,
    dry_run: Any,
    caches: Sequence[GroupNeed],
    writes: list[DiskNeed],
    evaluated: int,
) -> Budget:
    """Put the figures together; `evaluated` pictures are drawn at the end."""
    took, callbacks, batch = dry_run.seconds, config["callbacks"], config["hardware"]["batch_size"]
    samples, held = (
        sum(n.total for n in caches if n.split == split and n.group == ENCODINGS) for split in ("train", "validation")
    )
    step = sizes.accumulation * (took["loading"] + took["micro_batch"]) + took["optimizer"]
    drawing = took["preview"] * config["sampler"]["steps"] / PREVIEW_STEPS
    batches = -(-held // sizes.micro_batch)
    every = {name: times(start, config["steps"], callbacks[name]["every_steps"]) for name in ("validation", "preview")}
    count = len(dry_run.stages.preview.prompts)
    return Budget(
        samples=samples,
        validation_samples=held,
        start=start,
        steps=config["steps"],
        batch_size=batch,
        sizes=sizes,
        images_per_second=batch / step,
        seconds={
            "training": (config["steps"] - start) * step,
            "validation": every["validation"] * batches * took["validation"],
            "previews": every["preview"] * drawing,
            "evaluation": evaluated / count * drawing,
        },
        memory=max(dry_run.plan.stages, key=lambda stage: stage.total),
        caches_there=sum(_bytes(n) for n in caches),
        writes=writes,
    )


def _bytes(need: GroupNeed) -> int:
    folder = need.store / need.group
    return sum(file.stat().st_size for file in folder.glob("shard_*")) if folder.is_dir() else 0
