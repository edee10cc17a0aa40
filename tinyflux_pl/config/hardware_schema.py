"""The keys of hardware: what computes, in which numbers, and how a batch is divided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tinyflux_pl.config.bind import Keys, Range
from tinyflux_pl.core.errors import ConfigError


@dataclass(frozen=True)
class Hardware(Keys):
    """What computes, in which numbers, and how a batch is divided."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: int | list[int] | Literal["auto"]
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"]
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
    batch_size: Annotated[int, Range(least=1, most=10**9)]
    accumulation: int | Literal["auto"]
    workers: Annotated[int, Range(least=0, most=4096)]
    threads: Annotated[int | None, Range(least=1, most=4096)]
    compile: bool
    gradient_checkpointing: bool | Literal["auto"]
    memory_gb: Annotated[float | None, Range(above=0)] = None
    drawn_at_once: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("accumulation", "drawn_at_once"):
            number = getattr(self, name)
            if number != "auto" and number < 1:
                cure = "auto, or a whole number that is at least 1"
                raise ConfigError(f"{name} is {number}", where=name, cure=cure)
        if self.accumulation != "auto" and self.batch_size % self.accumulation:
            what = f"{self.accumulation} micro-batches do not make a batch of {self.batch_size}"
            raise ConfigError(what, where="accumulation", cure="choose a batch_size that accumulation divides")
        one_or_more = self.devices == "auto" or (isinstance(self.devices, int) and self.devices >= 1)
        if self.accelerator in ("auto", "cpu", "mps") and not one_or_more:
            raise ConfigError(f"devices is {self.devices}", where="devices", cure="processes: hardware.devices=1")
        if not one_or_more and self.devices != -1 and not isinstance(self.devices, list):
            cure = "a number such as hardware.devices=1, -1 for all, or a list such as hardware.devices=[0,1]"
            raise ConfigError(f"devices is {self.devices}", where="devices", cure=cure)
