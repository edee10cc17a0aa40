"""The attention kernel that a model names, tried on a few tokens before weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def require(model: Mapping[str, Any], device: str, precision: str | None = None) -> None:
    """Raise ConfigError or MissingDependency where the kernel does not run on the device.

    `precision` is Lightning's name of a run that trains: the kernel has to go backwards too, and in its numbers.
    """
    backend = model.get("attention_backend")
    if backend is None:
        return
    import torch

    from tinyflux_pl.core.precision import DTYPES, check_dtype
    from tinyflux_pl.denoisers.attention_backend import require_usable

    if precision is None:
        require_usable(backend, device, check_dtype(model["dtype"], "model.dtype"))
        return
    require_usable(backend, device, DTYPES.get(precision, torch.float32), backward=True)
