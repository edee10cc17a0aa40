"""Numbers as files keep them: float8 with or without scales is read, packed formats and adapters are named."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError

CURE = "give the same release in bfloat16, float16, float32 or float8 (plain, or with a scale for each weight)"
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2)
SCALES = (".scale_weight", ".weight_scale")  # of a weight beside it, as two generations of tools name them
UNREAD = (".scale_input", ".input_scale")  # of activations, which stay in the type of the weights here
MARKER = "scaled_fp8"  # an empty tensor which says that there are scales
FORMAT = ".comfy_quant"  # JSON as bytes: in which format the weight beside it is
PACKED = (  # what a key says of the format; the first that fits is named
    (r"\.quant_state\.bitsandbytes__|\.(absmax|quant_map|SCB)$", "packed by bitsandbytes (nf4, fp4 or int8)"),
    (r"\.(qweight|wscales|qzeros)$", "packed for SVDQuant, GPTQ or AWQ"),
    (r"\._data$", "packed by quanto"),
    (r"\.weight_scale_2$", "packed as NVFP4"),
    (r"\.weight_scale_inv$", "float8 with scales of blocks"),
    (r"\.pre_quant_scale$", "smoothed before they were packed"),
)
ADAPTER = re.compile(r"(^|[._])lora[_\d]|\.lora\.|hada_w\d|lokr_w\d|oft_blocks|dora_scale|\.alpha$")


def plain(held: Mapping[str, Tensor], dtype: torch.dtype, where: str) -> dict[str, Tensor]:
    """The tensors of a file, those with scales multiplied out (in fp32, then `dtype`), the scales gone.

    What is not read: scales of activations. Raises CheckpointMismatch for packed weights, for scales of blocks and
    for a LoRA, ConfigError where a weight is not finite in float16.
    """
    require_network(held, where)
    for key in held:
        if key.endswith(FORMAT) and not (told := _format(held[key])).startswith("float8"):
            raise CheckpointMismatch(f"weights packed as {told}: {key[:200]}", where=where, cure=CURE)
    made = {key: value for key, value in held.items() if not key.endswith((*UNREAD, FORMAT)) and key != MARKER}
    for key in held:
        end = next((end for end in SCALES if key.endswith(end)), "")
        weight = f"{key.removesuffix(end)}.weight"
        if end and weight in held:  # else it is reported as unexpected
            made[weight] = _unscaled(weight, held[weight], made.pop(key), where).to(dtype)
    for key, value in made.items() if dtype == torch.float16 else ():
        if value.is_floating_point() and not bool(value.to(dtype).isfinite().all()):
            what = f"{key} holds what float16 cannot, numbers past 65504 or none"
            raise ConfigError(what, where=where, cure="choose the dtype bfloat16 or float32")
    return made


def require_network(held: Collection[str], where: str) -> None:
    """Raise CheckpointMismatch for the keys of packed weights, and where most are a LoRA's."""
    for pattern, what in PACKED:
        found = next((key for key in held if re.search(pattern, key)), None)
        if found:
            raise CheckpointMismatch(f"weights {what}: {found[:200]}", where=where, cure=CURE)
    adapter = sum(bool(ADAPTER.search(key)) for key in held)
    if adapter > len(held) / 2:
        cure = "give the network that it belongs to; to draw with it, merge it into those weights first"
        what = f"{adapter} of {len(held)} tensors are a LoRA's, which is no network by itself"
        raise CheckpointMismatch(what, where=where, cure=cure)


def require_plain_config(config: Mapping[str, Any], where: Path) -> None:
    """Raise CheckpointMismatch where a config.json says that the weights beside it are packed."""
    packed = config.get("quantization_config")
    if packed:
        method = packed.get("quant_method", "an unknown method") if isinstance(packed, dict) else packed
        raise CheckpointMismatch(f"weights packed by {str(method)[:60]}", where=str(where), cure=CURE)


def _unscaled(key: str, weight: Tensor, scale: Tensor, where: str) -> Tensor:
    rows = (*weight.shape[:1], *(1,) * (weight.ndim - 1))
    if weight.dtype not in FLOATS:
        raise CheckpointMismatch(f"{key} is packed as {_name(weight)} with a scale", where=where, cure=CURE)
    if scale.numel() != 1 and tuple(scale.shape) not in (rows, rows[:1]):
        what = f"{key} has a scale of shape {tuple(scale.shape)}, neither one number nor one a row"
        raise CheckpointMismatch(what, where=where, cure=CURE)
    return weight.float() * scale.float().reshape(-1, *rows[1:])


def _format(told: Tensor) -> str:
    try:
        return str(json.loads(bytes(told.flatten()[:4096].tolist()))["format"])[:60]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "what its comfy_quant does not say"


def _name(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
