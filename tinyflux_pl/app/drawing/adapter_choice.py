"""The adapters that `lora=` names, with their scales."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import ConfigError

CURE = "lora=FILE, lora=[A.safetensors:0.8,B.safetensors], or lora={A.safetensors: 0.8}"


def parse_adapters(lora: Any) -> list[tuple[Path, float]]:
    """Path and scale of each adapter; ConfigError for an invalid value or one named twice."""
    if lora is None:
        return []
    if isinstance(lora, dict):
        adapters = [(Path(str(path)), _number(scale, str(path))) for path, scale in lora.items()]
    elif isinstance(lora, str | list):
        adapters = [_split(entry) for entry in ([lora] if isinstance(lora, str) else lora)]
    else:
        raise ConfigError(f"lora is {lora!r}", where="lora", cure=CURE)
    paths = [path.expanduser().resolve() for path, _ in adapters]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named twice", where="lora", cure="add up its scales")
    return adapters


def _split(entry: str) -> tuple[Path, float]:
    """ "FILE:0.8" -> FILE, 0.8; a file whose own name ends like that wins."""
    path, colon, scale = entry.rpartition(":")
    if not colon or Path(entry).expanduser().exists():
        return Path(entry), 1.0
    return Path(path), _number(scale, path)


def _number(scale: Any, path: str) -> float:
    try:
        number = float(scale)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"the scale of {path} is {scale!r}", where="lora", cure=CURE)
    return number
