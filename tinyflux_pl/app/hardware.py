"""The hardware of a run: `auto` resolved, threads set, device reported, kernels checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from tinyflux_pl.config.hardware_schema import Hardware
from tinyflux_pl.config.schema import Job
from tinyflux_pl.engine.accelerator import AUTO, TYPES, describe, detect
from tinyflux_pl.engine.memory_plan import GIB, size

J = TypeVar("J", bound=Job)

MAX_DRAWN = 64  # pictures drawn at once
# The division of a batch where memory is not planned.
UNDIVIDED = {"accumulation": 1, "gradient_checkpointing": False, "drawn_at_once": MAX_DRAWN}


def set_up(config: J) -> J:
    """Set threads, print the device and return the configuration with a resolved accelerator.

    Raises ConfigError for an accelerator that this machine lacks.
    """
    import torch

    from tinyflux_pl.core import precision
    from tinyflux_pl.core.rank import is_rank_zero

    if config.hardware.threads:
        torch.set_num_threads(config.hardware.threads)
    config = resolve_auto(config)
    accelerator = config.hardware.accelerator
    device = describe(accelerator)
    number_format = precision.choose(config.hardware.precision, accelerator)
    if is_rank_zero():
        memory = size(device.total)
        print(f"hardware: {device.name}, {memory} of memory, precision {number_format}")
    return config


def resolve_auto(config: J) -> J:
    """The configuration with `auto` resolved where no memory plan is needed for it."""
    return config.replace(hardware=resolved(config.hardware))


def resolved(hardware: Hardware) -> Hardware:
    """The hardware with its accelerator detected and, on a CPU, its batch undivided."""
    if hardware.accelerator == AUTO:
        hardware = hardware.replace(accelerator=detect())
    if not plans_memory(hardware):
        auto = {k: v for k, v in UNDIVIDED.items() if getattr(hardware, k) == AUTO}
        hardware = hardware.replace(**auto)
    return hardware


def plans_memory(hardware: Hardware) -> bool:
    """True if memory is planned by arithmetic: on an accelerator, or where memory_gb is set.

    A CPU shares its memory with other programs; there the dry run measures, and `auto` divides
    nothing.
    """
    return TYPES[hardware.accelerator] != "cpu" or hardware.memory_gb is not None


def context_bytes(hardware: Hardware) -> int:
    """Bytes of the CUDA context, which torch's allocator does not count."""
    return int(hardware.context_gb * GIB) if TYPES.get(hardware.accelerator) == "cuda" else 0


def require_attention_kernel(
    model: Mapping[str, Any], device: str, precision: str | None = None
) -> None:
    """Run the attention kernel that a model names on a few tokens, before weights are read.

    `precision`, Lightning's name, is that of a training run: the kernel then has to run backwards
    too, in that number format. Raises ConfigError or MissingDependency.
    """
    backend = model.get("attention_backend")
    if backend is None:
        return
    import torch

    from tinyflux_pl.core.precision import DTYPES, check_dtype
    from tinyflux_pl.denoisers.attention_backend import require_usable

    if precision is None:
        require_usable(backend, device, check_dtype(model["dtype"], "model.dtype"))
    else:
        require_usable(backend, device, DTYPES.get(precision, torch.float32), backward=True)
