"""Weights quantized by bitsandbytes to 4 bits (nf4, fp4) or 8 (LLM.int8), from a file's data.

4 bits: two levels a byte, the first in its upper half, each of the table `quant_map` times the
`absmax` of its block; a nested absmax is packed so itself, with a mean added (Dettmers et al. 2023,
2305.14314). 8 bits: integers times `SCB` / 127, one a row. bitsandbytes itself is not needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint

STATE = ".quant_state.bitsandbytes__"  # JSON as bytes, beside the name of the format
FOUR_BITS = ("nf4", "fp4")
PARTS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
ROWS, ORDER = ".SCB", ".weight_format"
STATE_LIMIT = 2**16  # bytes


def unpacked(tensors: Mapping[str, Tensor], dtype: torch.dtype, where: str) -> dict[str, Tensor]:
    """The tensors of a file, with bitsandbytes' ones dequantized to `dtype`, one by one.

    Of the meta device, only STATE tensors need values: they hold the shapes. Raises
    CheckpointMismatch for another order of numbers, CorruptCheckpoint for parts that are missing
    or contradict each other.
    """
    states = {key: key.partition(STATE) for key in tensors if STATE in key}
    scales = [key for key in tensors if key.endswith(ROWS)]
    answer = {key: value for key, value in tensors.items() if key not in states}
    for key, (weight, _, kind) in states.items():
        if kind not in FOUR_BITS:
            raise CheckpointMismatch(
                f"{key[:200]} is packed as {kind[:60]}", where=where, cure=_CURE
            )
        parts = {part: answer.pop(f"{weight}{part}", None) for part in PARTS}
        answer[weight] = _four_bits(weight, answer.get(weight), tensors[key], parts, where).to(
            dtype
        )
    if left := next((key for key in answer if key.endswith(PARTS)), None):
        what = f"{left[:200]} of a weight packed by bitsandbytes, whose state is missing"
        raise CheckpointMismatch(what, where=where, cure=_CURE)
    for key in scales:
        weight = f"{key.removesuffix(ROWS)}.weight"
        order = answer.pop(f"{key.removesuffix(ROWS)}{ORDER}", None)
        scale = answer.pop(key)
        answer[weight] = _eight_bits(weight, answer.get(weight), scale, order, where).to(dtype)
    return answer


def is_state(key: str) -> bool:
    """True for the tensors that `unpacked` reads on the meta device too."""
    return STATE in key


def reads(quantization: Any) -> bool:
    """True for a config.json's quantization_config of these formats."""
    return isinstance(quantization, dict) and quantization.get("quant_method") == "bitsandbytes"


_CURE = "give the same release in nf4, bfloat16, float16, float32 or float8"


def _corrupt(weight: str, why: str, where: str) -> CorruptCheckpoint:
    what = f"{weight[:200]}, packed by bitsandbytes: {why}"
    return CorruptCheckpoint(what, where=where, cure="fetch it again")


def _four_bits(
    weight: str, packed: Tensor | None, state: Tensor, parts: dict[str, Tensor | None], where: str
) -> Tensor:
    described = _state(weight, state, where)
    shape, block = described["shape"], described["blocksize"]
    absmax, table = parts[".absmax"], parts[".quant_map"]
    if packed is None or absmax is None or table is None:
        raise _corrupt(weight, "its bytes, absmax or quant_map are missing", where)
    count = math.prod(shape)
    # bytes are stored as numbers of another type where training is sharded
    if (
        packed.nbytes != math.ceil(count / 2 / packed.itemsize) * packed.itemsize
        or absmax.numel() != math.ceil(count / block)
        or table.numel() != 16
    ):
        what = f"{packed.nbytes:,} bytes and {absmax.numel():,} scales for the shape {shape}"
        raise _corrupt(weight, what, where)
    if parts[".nested_absmax"] is not None or parts[".nested_quant_map"] is not None:
        absmax = _scales(weight, absmax, parts, described, where)
    if packed.is_meta:
        return torch.empty(shape, device="meta")
    pairs = torch.cartesian_prod(table.float(), table.float())  # of each byte
    values = pairs[packed.contiguous().view(-1).view(torch.uint8).int()].flatten()[:count]
    return _by_blocks(values, absmax.float().flatten(), block).reshape(shape)


def _scales(
    weight: str,
    absmax: Tensor,
    parts: dict[str, Tensor | None],
    described: dict[str, Any],
    where: str,
) -> Tensor:
    """absmax, dequantized where it is quantized itself."""
    outer, table = parts[".nested_absmax"], parts[".nested_quant_map"]
    block, offset = described.get("nested_blocksize"), described.get("nested_offset")
    stated = _is_size(block) and isinstance(offset, int | float)
    complete = outer is not None and table is not None and absmax.dtype == torch.uint8
    if not (stated and complete):
        raise _corrupt(weight, "its nested scales lack a part", where)
    if table.numel() != 256 or outer.numel() != math.ceil(absmax.numel() / block):
        raise _corrupt(weight, f"{outer.numel():,} scales of {absmax.numel():,} scales", where)
    if absmax.is_meta:
        return absmax
    levels = table.float().flatten()[absmax.flatten().int()]
    return _by_blocks(levels, outer.float().flatten(), block) + offset


def _by_blocks(values: Tensor, scales: Tensor, block: int) -> Tensor:
    """Values (n,) times the scale of their block, in place where blocks divide them."""
    if values.numel() % block == 0:
        return values.view(-1, block).mul_(scales[:, None]).flatten()
    return values * scales.repeat_interleave(block)[: values.numel()]


def _state(weight: str, state: Tensor, where: str) -> dict[str, Any]:
    """The JSON that a STATE tensor holds, its shape and block size checked."""
    try:
        described = json.loads(bytes(state.flatten()[:STATE_LIMIT].tolist()))
    except (ValueError, RecursionError) as error:
        raise _corrupt(weight, "its state is no JSON", where) from error
    shape = described.get("shape") if isinstance(described, dict) else None
    sizes = isinstance(shape, list) and 0 < len(shape) <= 8 and all(map(_is_size, shape))
    if not sizes or not _is_size(described.get("blocksize")):
        raise _corrupt(weight, "its state tells no shape and block size", where)
    return described


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**40


def _eight_bits(
    weight: str, packed: Tensor | None, scale: Tensor, order: Tensor | None, where: str
) -> Tensor:
    if packed is None or packed.ndim != 2 or packed.dtype != torch.int8:
        raise _corrupt(weight, "no matrix of int8", where)
    if scale.numel() != packed.shape[0] or not scale.is_floating_point():
        raise _corrupt(weight, f"{scale.numel():,} scales for {packed.shape[0]:,} rows", where)
    if order is not None and not order.is_meta and bool(order.any()):
        what = f"{weight[:200]} is packed for another matrix product than by rows"
        raise CheckpointMismatch(what, where=where, cure=_CURE)
    return packed.float().mul_(scale.float().reshape(-1, 1)).mul_(1 / 127)
