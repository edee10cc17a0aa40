"""Keys of the nodes `cache` and `engine`: the step cache of a drawing, and its memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tinyflux_pl.config.bind import Keys, NotEmpty, Range
from tinyflux_pl.core.errors import ConfigError


@dataclass(frozen=True)
class Cache(Keys):
    """Kind, threshold and coefficients of a step cache; a calibration and a measurement of it."""

    kind: Literal["none", "first_block", "teacache"]
    threshold: Annotated[float, Range(least=0, most=1e30)]
    longest: Annotated[int, Range(least=1, most=10**6)]
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


class ByteSize:
    """A number of bytes with its unit, as text; a bare number has none."""

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, str) and value != ""

    def __str__(self) -> str:
        return "a number and its unit: engine.budget=12GiB"


@dataclass(frozen=True)
class Engine(Keys):
    """Where the parts of a pipeline lie, their memory, and the format of stored weights."""

    placement: Literal["resident", "sequential", "offload", "auto"] | None
    budget: Annotated[str | int | float | None, ByteSize()]
    prompts: Annotated[str | None, NotEmpty()]
    precision: Literal["fp8", "int8", "int8_dynamic", "int4", "q_dit"] | None
    balance: Literal["smoothquant", "ptq4dit"]
    calibrate: Annotated[str | None, NotEmpty()]
    calibration: Annotated[str | None, NotEmpty()]
    report: Annotated[str | None, NotEmpty()]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.report is not None and self.precision is None:
            cure = "engine.precision=int8, or engine.report=null"
            raise ConfigError("no weights are stored in fewer bits", where="report", cure=cure)
        for name in ("calibrate", "calibration"):
            if getattr(self, name) is not None and self.precision is None:
                cure = f"engine.precision=int8_dynamic, or engine.{name}=null"
                raise ConfigError("no format to calibrate for", where=name, cure=cure)
        if self.calibrate is not None and self.calibration is not None:
            cure = "engine.calibration=null while calibrating"
            raise ConfigError("a calibration reads plain weights", where="calibrate", cure=cure)

    @property
    def stored(self) -> str | None:
        """The format that weights are drawn with; None while it is calibrated for."""
        return self.precision if self.calibrate is None else None

    @property
    def chosen(self) -> str:
        """The placement's name; where none is given, auto for a budget, else resident."""
        return self.placement or ("resident" if self.budget is None else "auto")
