"""An autoencoder's settings: checks before anything is read, and those that affect latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyflux_pl.core.errors import ConfigError


def require_settings(scaling: str, dtype: str, data_deviation: float, posterior: str) -> None:
    """Raise ConfigError for a value that the codec does not know."""
    if scaling not in ("shifted", "unshifted"):
        raise ConfigError(
            f"no scaling {scaling!r}", where="codec.scaling", cure="shifted or unshifted"
        )
    if posterior not in ("mean", "sampled"):
        raise ConfigError(
            f"no posterior {posterior!r}", where="codec.posterior", cure="mean or sampled"
        )
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ConfigError(
            f"no dtype {dtype!r}", where="codec.dtype", cure="float32, bfloat16 or float16"
        )
    if not 0 < data_deviation < float("inf"):
        what, cure = f"data_deviation is {data_deviation}", "a positive number; 1 changes nothing"
        raise ConfigError(what, where="codec.data_deviation", cure=cure)


def require_no_overflow(dtype: str, config: Mapping[str, Any], name: str) -> None:
    """Raise ConfigError for float16 if the autoencoder's activations overflow it."""
    if dtype == "float16" and config.get("force_upcast", True):
        why = "its config says force_upcast: activations pass 65504"
        cure = "codec.dtype=bfloat16, or float32; or an autoencoder mended for float16, with "
        raise ConfigError(
            f"{name} overflows in float16: {why}",
            where="codec.dtype",
            cure=cure + "force_upcast: false",
        )


def deciding(
    config: Mapping[str, Any], defaults: Mapping[str, Any], tile: int | None, posterior: str
) -> dict[str, Any]:
    """The settings that change the latents and differ from diffusers' `defaults`."""
    settings = {key: config.get(key, default) for key, default in defaults.items()}
    changed = {key: value for key, value in settings.items() if value != defaults[key]}
    if posterior != "mean":
        changed["posterior"] = posterior
    return changed if tile is None else {**changed, "tile": tile, "tiled": "fine levels"}
