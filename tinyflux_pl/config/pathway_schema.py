"""Keys of the node `pathway`: how the teachers of a run reach the student."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from tinyflux_pl.config.bind import Keys, Range
from tinyflux_pl.config.callback_schema import Count
from tinyflux_pl.core.errors import ConfigError


@dataclass(frozen=True)
class VelocityPathway(Keys):
    """pathway.velocity"""

    probability: Annotated[float, Range(above=0, most=1)]
    weight: Annotated[float, Range(above=0, most=1)]
    ramp_steps: Count
    gate: bool
    t_buckets: Annotated[list[float], Range(above=0, below=1)]
    int8: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        times = self.t_buckets
        if not times or any(a >= b for a, b in pairwise(times)):
            cure = "times of the student's path, each larger than the one before: [0.05, 0.5]"
            raise ConfigError(f"t_buckets are {times}", where="t_buckets", cure=cure)


@dataclass(frozen=True)
class OnlinePathway(Keys):
    """pathway.online"""

    probability: Annotated[float, Range(above=0, most=1)]
    weight: Annotated[float, Range(above=0, most=1)]
    ramp_steps: Count


@dataclass(frozen=True)
class Pathway(Keys):
    """pathway: features into ports, velocities as targets, both, a teacher in the step, or none."""

    ports: bool
    velocity: VelocityPathway | None = None
    online: OnlinePathway | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.online is not None and (self.ports or self.velocity is not None):
            cure = "pathway=online alone, or one of ports, velocity and both"
            raise ConfigError("a teacher in the step, and cached ones", where="online", cure=cure)


PORTS = {"ports": True, "velocity": None}  # of runs from before there was a choice
