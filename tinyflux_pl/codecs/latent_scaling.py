"""The numbers of an autoencoder's config.json that normalise its latents."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError


def scale_of(config: dict[str, Any], name: str) -> float:
    """scaling_factor, diffusers' default where the config has none.

    ConfigError unless positive and finite.
    """
    factor = config.get("scaling_factor", 0.18215)
    if not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        cure = "use the config.json that the autoencoder was published with"
        raise ConfigError(
            f"scaling_factor is {factor!r}", where=f"config.json of {name}", cure=cure
        )
    return float(factor)


def statistics_of(config: dict[str, Any], scaling: str, name: str) -> tuple[Tensor, Tensor] | None:
    """latents_mean and latents_std of a config.json, each (C, 1, 1) in fp32.

    None where it has neither.

    ConfigError where there is one without the other, of another length than the channels, not
    positive, beside a shift_factor, or where `scaling` leaves shifts out: none of these says which
    latents are meant.
    """
    statistics = [config.get(key) for key in ("latents_mean", "latents_std")]
    if statistics == [None, None]:
        return None
    where = f"config.json of {name}"
    wrong = "one of them is missing" if None in statistics else ""
    channels = config.get("latent_channels", 4)
    sized = not wrong and all(
        isinstance(part, list | tuple) and len(part) == channels for part in statistics
    )
    numbers = sized and all(
        isinstance(n, int | float) and math.isfinite(n) for part in statistics for n in part or ()
    )
    if not wrong and not (numbers and all(n > 0 for n in statistics[1] or ())):
        wrong = f"each must be {channels} finite numbers, the deviations positive"
    elif not wrong and (config.get("shift_factor") or scaling != "shifted"):
        wrong = (
            "the config also has a shift_factor"
            if config.get("shift_factor")
            else f"scaling={scaling}"
        )
    if wrong:
        do = "use the config.json that the autoencoder was published with, or take them out of it"
        raise ConfigError(f"latents_mean and latents_std: {wrong}", where=where, cure=do)
    mean, deviation = (
        torch.tensor(part, dtype=torch.float32)[:, None, None] for part in statistics
    )
    return mean, deviation
