"""Scalars that change with the step: loss ramps and learning-rate multipliers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinyflux_pl.core.errors import ConfigError

WARMUPS = ("linear", "cosine")
DECAYS = ("cosine", "linear", "constant")
FLOORS = ("span", "clip")


def warmup(step: int, steps: int, kind: str = "linear") -> float:
    """0 at step 0, rising to 1 at `steps`, 1 afterwards (and always, when steps is 0)."""
    if step >= steps:
        return 1.0
    progress = max(step, 0) / steps
    return progress if kind == "linear" else 0.5 * (1 - math.cos(math.pi * progress))


@dataclass(frozen=True)
class Ramp:
    """A loss weight that grows from 0 to `weight` in `warmup_steps`."""

    weight: float
    warmup_steps: int = 0
    kind: str = "linear"

    def __post_init__(self) -> None:
        if self.kind not in WARMUPS:
            raise ConfigError(
                f"unknown warm-up {self.kind!r}",
                where="Ramp.kind",
                cure=f"choose {', '.join(WARMUPS)}",
            )

    def __call__(self, step: int) -> float:
        """The weight at this optimizer step."""
        return self.weight * warmup(step, self.warmup_steps, self.kind)


@dataclass(frozen=True)
class LearningRate:
    """Multiplier of the base rate: warm-up, then decay to `floor` at `total_steps`.

    floor_kind "span" scales the decay into [floor, 1]; "clip" cuts it off at floor.
    """

    total_steps: int
    warmup_steps: int = 0
    decay: str = "cosine"
    warmup_kind: str = "linear"
    floor: float = 0.0
    floor_kind: str = "span"

    def __post_init__(self) -> None:
        for field, choices in (("decay", DECAYS), ("warmup_kind", WARMUPS), ("floor_kind", FLOORS)):
            if getattr(self, field) not in choices:
                raise ConfigError(
                    f"unknown {field} {getattr(self, field)!r}",
                    where=f"schedule.{field}",
                    cure=f"choose {', '.join(choices)}",
                )
        if not 0 <= self.floor <= 1:
            raise ConfigError(
                f"floor={self.floor}",
                where="schedule.floor",
                cure="a share of the base rate, 0 to 1",
            )
        if self.total_steps < 1 or self.warmup_steps < 0:
            raise ConfigError(
                f"{self.total_steps} steps, {self.warmup_steps} of warm-up",
                where="schedule",
                cure="total_steps >= 1 and warmup_steps >= 0",
            )

    def __call__(self, step: int) -> float:
        """The multiplier at this optimizer step (0 at step 0 when there is a warm-up)."""
        if step < self.warmup_steps:
            return warmup(step, self.warmup_steps, self.warmup_kind)
        if self.decay == "constant":
            return 1.0
        progress = min(
            (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1), 1.0
        )
        remaining = (
            1 - progress if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
        )
        return (
            self.floor + (1 - self.floor) * remaining
            if self.floor_kind == "span"
            else max(remaining, self.floor)
        )
