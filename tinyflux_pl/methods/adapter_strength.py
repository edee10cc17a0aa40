"""The strength of each layer of an adapter file, where the keys themselves do not hold it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyflux_pl.core import files
from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.methods.layer_patterns import matches

CONFIG = "adapter_config.json"
DIFFUSERS_KEY = "lora_adapter_metadata"
TINYFLUX_KEYS = ("lora_config", "config")


def of_peft(file: Path) -> Mapping[str, Any]:
    """The adapter_config.json next to a file; CheckpointMismatch if there is none."""
    path = file.parent / CONFIG
    if not path.is_file():
        raise CheckpointMismatch(
            f"no {CONFIG} beside it, which holds the adapter's strength",
            where=str(file),
            cure="give the folder that peft saved, with both files",
        )
    return files.read_object(path)


def of_diffusers(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    """Settings in the header of newer files, without the component's prefix; {} without any."""
    settings = _object(metadata.get(DIFFUSERS_KEY, "{}"))
    return {str(key).partition(".")[2]: value for key, value in settings.items()}


def peft_scale(settings: Mapping[str, Any], layer: str, rank: int) -> float:
    """alpha / rank of a layer by the settings of a LoraConfig; 1 where they say nothing."""
    alpha = _by_name(settings.get("alpha_pattern"), layer)
    if alpha is None:
        alpha = settings.get("lora_alpha", settings.get("alpha"))
    if alpha is None:
        return 1.0
    return float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)


def peft_rank(settings: Mapping[str, Any], layer: str) -> int:
    """The rank of a layer by the settings of peft; 1 where they say nothing."""
    rank = _by_name(settings.get("rank_pattern"), layer)
    return int(settings.get("r", 1) if rank is None else rank)


def tinyflux_scale(metadata: Mapping[str, str], layer: str, rank: int) -> float:
    """alpha / rank of a layer by TinyFlux's configuration; targets change the defaults in order."""
    stored = next((metadata[key] for key in TINYFLUX_KEYS if key in metadata), "{}")
    config = _object(stored)
    alpha = config.get("defaults", {}).get("alpha", rank)
    for target in config.get("targets") or ():
        if "alpha" in target and matches(str(target.get("pattern")), layer):
            alpha = target["alpha"]
    return float(alpha) / rank


def _by_name(patterns: Any, layer: str) -> Any:
    """The value of the first key that ends the layer's name, as peft compares them."""
    for key, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?{re.escape(str(key).lstrip('^'))}", layer):
            return value
    return None


def _object(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {}
