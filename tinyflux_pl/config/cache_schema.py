"""Keys of the nodes `cache` and `engine`: the step cache of a drawing, and its memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tinyflux_pl.config.bind import Keys, NotEmpty, Range
from tinyflux_pl.core.errors import ConfigError


@dataclass(frozen=True)
class Cache(Keys):
    """Kind, threshold and coefficients of a step cache; a calibration and a measurement of it."""

    kind: Literal["none", "first_block", "teacache"]
    threshold: Annotated[float, Range(least=0, most=1e30)]
    longest: Annotated[int, Range(least=1)]
    coefficients: str | list[float] | None
    calibrate: str | None
    measure: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.calibrate is not None and self.kind != "none":
            cure = "cache.kind=none while calibrating"
            raise ConfigError("a calibration computes every step", where="calibrate", cure=cure)
        if self.kind != "teacache" and self.coefficients is not None:
            cure = "cache.kind=teacache, or cache.coefficients=null"
            raise ConfigError("only TeaCache reads coefficients", where="coefficients", cure=cure)
        if self.kind == "none" and self.measure:
            cure = "choose cache.kind=first_block or teacache"
            raise ConfigError("there is no cache to measure", where="measure", cure=cure)


@dataclass(frozen=True)
class Engine(Keys):
    """Where the parts of a pipeline lie, and the memory that they may take."""

    placement: Literal["resident", "sequential", "offload", "auto"] | None
    budget: Annotated[str | None, NotEmpty()]
    prompts: Annotated[str | None, NotEmpty()]

    @property
    def chosen(self) -> str:
        """The placement's name; where none is given, auto for a budget, else resident."""
        return self.placement or ("resident" if self.budget is None else "auto")
