"""The accelerator of this machine: its kind, its torch name and its memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.engine.peak_memory import total_bytes

AUTO = "auto"
TYPES = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "mps": "mps"}  # Lightning's names -> torch's


@dataclass(frozen=True)
class Device:
    """An accelerator: Lightning's name, the vendor's name, and total memory in bytes."""

    accelerator: str
    name: str
    total: int


def detect() -> str:
    """The best accelerator available to torch: gpu (CUDA or ROCm), mps (Apple), else cpu."""
    if torch.cuda.is_available():
        return "gpu"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_of(accelerator: str) -> str:
    """torch's device type of an accelerator: cpu, cuda or mps.

    ConfigError if it is not available.
    """
    device = TYPES[detect() if accelerator == AUTO else accelerator]
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "this machine has no usable GPU", where="hardware.accelerator", cure="hardware=cpu"
        )
    if device == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(
            "this machine has no Apple GPU", where="hardware.accelerator", cure="hardware=cpu"
        )
    return device


def describe(accelerator: str) -> Device:
    """The device of `accelerator`; ConfigError if it is not available."""
    device = device_of(accelerator)
    if device == "cuda":
        name = torch.cuda.get_device_name()
    elif device == "mps":
        name = "Apple GPU (MPS)"
    else:
        threads = torch.get_num_threads()
        name = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    return Device(accelerator, name, total_bytes(device))
