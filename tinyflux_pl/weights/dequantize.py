"""Quantized weights: float8 and int8 times their scales; other packed formats are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError, CorruptCheckpoint
from tinyflux_pl.weights import bitsandbytes_weights
from tinyflux_pl.weights.key_diff import listed
from tinyflux_pl.weights.packed_rows import stored_bytes

UNPACKED = (
    "give the same release in bfloat16, float16, float32 or float8 (plain, or with a scale for "
    "each weight), in bitsandbytes' nf4 or int8, or as GGUF"
)
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
# times a scale: a weight
SCALED = (torch.float64, torch.float32, torch.bfloat16, torch.float16, *FLOAT8, torch.int8)
# of a weight beside it, as two generations of tools name them
SCALES = (".scale_weight", ".weight_scale")
# of activations, which stay in the type of the weights here
UNREAD = (".scale_input", ".input_scale")
MARKER = "scaled_fp8"  # an empty tensor which announces scales
FORMAT = ".comfy_quant"  # JSON as bytes: in which format the weight beside it is
# those that a product with the scale undoes
FORMATS = ("float8_e4m3fn", "float8_e5m2", "int8", "int8_tensorwise")
FORMAT_KEYS = {"format", "full_precision_matrix_mult"}  # others change what the numbers mean
PACKED = (  # what a key says of the format; the first that fits is named
    (r"\.(qweight|wscales|qzeros)$", "packed for SVDQuant, GPTQ or AWQ"),
    (r"\._data$", "packed by quanto"),
    (r"\.weight_scale_2$", "packed as NVFP4"),
    (r"\.(weight_)?(zero_point|zeros)$", "packed with zero points"),
    (r"\.(weight_)?(packed|g_idx)$", "packed by compressed-tensors"),
    (r"\.weight_scale_inv$", "float8 with scales of blocks"),
    (r"\.pre_quant_scale$", "smoothed before they were packed"),
)
ADAPTER = re.compile(r"(^|[._])lora[_\d]|\.lora\.|hada_w\d|lokr_w\d|oft_blocks|dora_scale|\.alpha$")


def plain(tensors: Mapping[str, Tensor], dtype: torch.dtype, where: str) -> dict[str, Tensor]:
    """The tensors of a file with quantization scales applied (in fp32, then `dtype`).

    Those of bitsandbytes too (weights.bitsandbytes_weights).

    What is not read: scales of activations. Tensors of the meta device, which stand for a file's
    headers, are judged as far as headers tell. Raises CheckpointMismatch for packed weights, for
    scales of blocks, for scales that lack their weight or are lacking, and for a LoRA,
    CorruptCheckpoint for weights that are all zeros, ConfigError where a weight is not finite in
    float16.
    """
    require_network(tensors, where)
    tensors = bitsandbytes_weights.unpacked(tensors, dtype, where)
    scale_of = _scales(tensors, where)
    _require_formats(tensors, scale_of, where)
    _require_all_scales(tensors, scale_of, where)
    unread = {MARKER, *scale_of.values()}
    dequantized = {
        key: value
        for key, value in tensors.items()
        if not key.endswith((*UNREAD, FORMAT)) and key not in unread
    }
    for weight, scale in scale_of.items():
        dequantized[weight] = _unscaled(weight, tensors[weight], tensors[scale], where).to(dtype)
    for key, value in dequantized.items():
        if key.endswith("weight") and value.ndim >= 2 and not value.is_floating_point():
            raise CheckpointMismatch(
                f"{key[:200]} is packed as {value.dtype}", where=where, cure=UNPACKED
            )
    require_values(dequantized, where)
    for key, value in dequantized.items() if dtype == torch.float16 else ():
        if (
            value.is_floating_point()
            and not value.is_meta
            and not bool(value.to(dtype).isfinite().all())
        ):
            what = f"{key} holds what float16 cannot, numbers past 65504 or none"
            raise ConfigError(what, where=where, cure="choose the dtype bfloat16 or float32")
    return dequantized


def require_values(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise CorruptCheckpoint if at least half of the matrix bytes are of all-zero matrices.

    A download that stopped leaves such a file where space was reserved for it beforehand.
    """
    matrices = {
        key: value for key, value in tensors.items() if value.ndim >= 2 and not value.is_meta
    }
    zeros = {key: value.nbytes for key, value in matrices.items() if _is_zero(value)}
    if zeros and 2 * sum(zeros.values()) >= sum(value.nbytes for value in matrices.values()):
        what = (
            f"{len(zeros):,} of {len(matrices):,} matrices hold zeros alone: "
            f"{listed(dict.fromkeys(zeros, ''))}"
        )
        raise CorruptCheckpoint(
            what, where=where, cure="fetch it again: a download that stopped leaves zeros"
        )


def _is_zero(value: Tensor) -> bool:
    numbers = stored_bytes(value)
    # of most, the first page tells
    return not bool(numbers[:4096].any()) and not bool(numbers.any())


def require_network(keys: Collection[str], where: str) -> None:
    """Raise CheckpointMismatch for the keys of packed weights, and where most are a LoRA's."""
    for pattern, what in PACKED:
        packed_key = next((key for key in keys if re.search(pattern, key)), None)
        if packed_key:
            raise CheckpointMismatch(
                f"weights {what}: {packed_key[:200]}", where=where, cure=UNPACKED
            )
    adapter = sum(bool(ADAPTER.search(key)) for key in keys)
    if adapter > len(keys) / 2:
        cure = "give the network that it belongs to, and lora=FILE to sample with it"
        what = f"{adapter} of {len(keys)} tensors belong to a LoRA, which is not a network"
        raise CheckpointMismatch(what, where=where, cure=cure)


def require_plain_config(config: Mapping[str, Any], where: Path) -> None:
    """Raise CheckpointMismatch for a config.json with a quantization that is not supported."""
    packed = config.get("quantization_config")
    if packed and not bitsandbytes_weights.reads(packed):
        method = (
            packed.get("quant_method", "an unknown method") if isinstance(packed, dict) else packed
        )
        raise CheckpointMismatch(
            f"weights packed by {str(method)[:60]}", where=str(where), cure=UNPACKED
        )


def _scales(keys: Collection[str], where: str) -> dict[str, str]:
    """Weight -> the key of its scale.

    CheckpointMismatch for a scale without a weight, and for a second one.
    """
    scale_of: dict[str, str] = {}
    for key in keys:
        end = next((end for end in SCALES if key.endswith(end)), "")
        weight = f"{key.removesuffix(end)}.weight"
        if end and weight not in keys:
            raise CheckpointMismatch(
                f"a scale without a weight: {key[:200]}", where=where, cure=UNPACKED
            )
        if end and weight in scale_of:
            raise CheckpointMismatch(f"two scales for {weight[:200]}", where=where, cure=UNPACKED)
        if end:
            scale_of[weight] = key
    return scale_of


def _require_formats(tensors: Mapping[str, Tensor], scaled: Collection[str], where: str) -> None:
    """Raise CheckpointMismatch for a format that is not inverted by multiplying with a scale."""
    for key in tensors:
        if not key.endswith(FORMAT):
            continue
        stored_format = _format(tensors[key])
        weight = f"{key.removesuffix(FORMAT)}.weight"
        if stored_format not in FORMATS:
            raise CheckpointMismatch(
                f"weights packed as {stored_format}: {key[:200]}", where=where, cure=UNPACKED
            )
        if weight in tensors and weight not in scaled:
            raise CheckpointMismatch(
                f"{weight[:200]} is {stored_format} without a scale", where=where, cure=UNPACKED
            )


def _require_all_scales(tensors: Mapping[str, Tensor], scaled: Collection[str], where: str) -> None:
    """Raise CheckpointMismatch for a float8 matrix without scale where scales are expected."""
    float8 = [key for key, value in tensors.items() if value.dtype in FLOAT8 and value.ndim >= 2]
    bare = dict.fromkeys((key for key in float8 if key not in scaled), "")
    if bare and (scaled or MARKER in tensors):
        what = f"{len(bare):,} of {len(float8):,} float8 matrices lack their scale: {listed(bare)}"
        raise CheckpointMismatch(what, where=where, cure=UNPACKED)
    if MARKER in tensors and not scaled:
        raise CheckpointMismatch(
            f"{MARKER} announces scales, but there are none", where=where, cure=UNPACKED
        )


def _unscaled(key: str, weight: Tensor, scale: Tensor, where: str) -> Tensor:
    rows = (*weight.shape[:1], *(1,) * (weight.ndim - 1))
    if weight.dtype not in SCALED or not scale.is_floating_point():
        what = f"{key} is packed as {_name(weight)} with a scale of {_name(scale)}"
        raise CheckpointMismatch(what, where=where, cure=UNPACKED)
    if scale.numel() != 1 and tuple(scale.shape) not in (rows, rows[:1]):
        what = f"{key} has a scale of shape {tuple(scale.shape)}, neither one number nor one a row"
        raise CheckpointMismatch(what, where=where, cure=UNPACKED)
    number = scale.float()
    if not scale.is_meta and not bool((number.isfinite() & (number > 0)).all()):
        raise CorruptCheckpoint(
            f"a scale of {key} is not positive", where=where, cure="fetch it again"
        )
    return weight.float() * number.reshape(-1, *rows[1:])


def _format(content: Tensor) -> str:
    """The format that a FORMAT tensor names in JSON; a meta tensor counts as readable."""
    if content.is_meta:
        return FORMATS[0]
    try:
        description = json.loads(bytes(content.flatten()[:4096].tolist()))
        extra = sorted(set(description) - FORMAT_KEYS)
        return str(description["format"])[:60] + (f" with {', '.join(extra)[:60]}" if extra else "")
    except (ValueError, KeyError, TypeError, RecursionError):
        return "what its comfy_quant does not say"


def _name(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
