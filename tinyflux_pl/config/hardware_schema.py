"""Keys of the node `hardware`: devices, number format, and the division of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tinyflux_pl.config.bind import Keys, Range
from tinyflux_pl.core.errors import ConfigError


@dataclass(frozen=True)
class Hardware(Keys):
    """Devices, number format, and the division of a batch."""

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
    context_gb: Annotated[float, Range(least=0, most=1024)] = 0.5
    drawn_at_once: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("accumulation", "drawn_at_once"):
            number = getattr(self, name)
            if number != "auto" and number < 1:
                cure = "auto, or an integer of at least 1"
                raise ConfigError(f"{name} is {number}", where=name, cure=cure)
        if self.accumulation != "auto" and self.batch_size % self.accumulation:
            raise ConfigError(
                f"{self.accumulation} micro-batches do not divide a batch of {self.batch_size}",
                where="accumulation",
                cure="choose a batch_size that accumulation divides",
            )
        self._check_devices()

    def _check_devices(self) -> None:
        devices, what = self.devices, f"devices is {self.devices}"
        at_least_one = devices == "auto" or (isinstance(devices, int) and devices >= 1)
        if self.accelerator in ("auto", "cpu", "mps") and not at_least_one:
            cure = "a number of processes: hardware.devices=1"
            raise ConfigError(what, where="devices", cure=cure)
        if not at_least_one and devices != -1 and not isinstance(devices, list):
            cure = (
                "a number such as hardware.devices=1, -1 for all, or a list such as "
                "hardware.devices=[0,1]"
            )
            raise ConfigError(what, where="devices", cure=cure)
