"""The hardware of a run: `auto` decided, and said in a line."""

from __future__ import annotations

from typing import Any

from tinyflux_pl.engine.accelerator import AUTO, TYPES, describe, detect
from tinyflux_pl.engine.memory_plan import size

MOST_DRAWN = 64  # pictures at once
# How a batch is divided where no memory is planned.
UNDIVIDED = {"accumulation": 1, "gradient_checkpointing": False, "drawn_at_once": MOST_DRAWN}


def chosen(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with its accelerator decided; says which, its memory and the precision.

    Raises ConfigError where the accelerator is not there.
    """
    from tinyflux_pl.core import precision
    from tinyflux_pl.core.rank import is_rank_zero

    config = decided(config)
    accelerator = config["hardware"]["accelerator"]
    device, number = describe(accelerator), precision.choose(config["hardware"]["precision"], accelerator)
    if is_rank_zero():
        print(f"hardware: {device.name}, {size(device.total)} of memory, precision {number}")
    return config


def decided(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with `auto` decided where no plan is needed for it: the accelerator, and a CPU's batch."""
    hardware = config["hardware"]
    if hardware["accelerator"] == AUTO:
        hardware = {**hardware, "accelerator": detect()}
    if not planned(hardware):
        hardware = {**hardware, **{k: v for k, v in UNDIVIDED.items() if hardware.get(k, AUTO) == AUTO}}
    return {**config, "hardware": hardware}


def planned(hardware: dict[str, Any]) -> bool:
    """Whether memory is planned by arithmetic: on an accelerator, or where the user says how much there is.

    A CPU shares its memory with all else; there the dry run counts, and nothing is divided by itself.
    """
    return TYPES[hardware["accelerator"]] != "cpu" or hardware.get("memory_gb") is not None
