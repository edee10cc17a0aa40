"""The keys of callbacks.*: averages, checkpoints, previews, validation, the guard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from tinyflux_pl.config.bind import Keys, NotEmpty, Range
from tinyflux_pl.core import metric_names
from tinyflux_pl.core.errors import ConfigError

MOST = 10**9  # more steps, pictures or files than any run has
Count = Annotated[int, Range(least=0, most=MOST)]
Positive = Annotated[int, Range(least=1, most=MOST)]
Seed = Annotated[int, Range(least=-(2**63), most=2**64 - 1)]  # as torch takes them
Factor = Annotated[float | None, Range(above=1, most=1e30)]  # None: no limit


@dataclass(frozen=True)
class Average(Keys):
    """Keys of callbacks.ema."""

    decay: Annotated[float, Range(least=0, below=1)]
    warmup: bool


@dataclass(frozen=True)
class Saving(Keys):
    """Keys of callbacks.checkpoint."""

    every_steps: Count
    every_epochs: Count
    keep: Positive
    background: bool


@dataclass(frozen=True)
class Previews(Keys):
    """Keys of callbacks.preview."""

    every_steps: Count
    count: Positive
    prompts: list[str] | None = None


@dataclass(frozen=True)
class Grid(Keys):
    """Keys of callbacks.validation."""

    every_steps: Count
    times: Annotated[list[float], Range(least=0, most=1)]
    samples: Positive | None = None
    seen: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.times:
            raise ConfigError(
                "no times",
                where="times",
                cure="shares of the way from noise to data: [0.1, 0.5, 0.9]",
            )


@dataclass(frozen=True)
class Guard(Keys):
    """Keys of callbacks.guard."""

    warmup: Count
    loss_factor: Factor
    norm_factor: Factor
    max_consecutive: Count
    max_recent: Count


@dataclass(frozen=True)
class Stopping(Keys):
    """Keys of callbacks.early_stopping."""

    monitor: Annotated[str, NotEmpty()]
    mode: Literal["min", "max"]
    patience: Positive
    min_delta: Annotated[float, Range(least=0, most=1e30)]
    stopping_threshold: Annotated[float | None, Range(least=-1e30, most=1e30)] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_logged(self.monitor, "monitor")


def require_logged(name: str, where: str) -> None:
    """Raise ConfigError for a metric that no run logs."""
    if not any(entry.matches(name) for entry in metric_names.SCALARS):
        raise ConfigError(
            f"no metric {name!r} is logged",
            where=where,
            cure="a name of docs/dashboards.md, such as validation/loss",
        )


@dataclass(frozen=True)
class Callbacks(Keys):
    """Keys of callbacks.

    Averages, checkpoints, previews, validation, guard, clipping, logging, early stopping, and
    further callbacks by class.
    """

    ema: Average
    checkpoint: Saving
    preview: Previews
    validation: Grid
    guard: Guard
    clip: Annotated[float | None, Range(above=0, most=1e30)]
    log_every_steps: Count
    early_stopping: Stopping | None = None
    extra: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        for index, node in enumerate(self.extra):
            if "_target_" not in node:
                cure = "give each callback as {_target_: CLASS, KEY: VALUE}"
                raise ConfigError("a callback without a class", where=f"extra.{index}", cure=cure)
