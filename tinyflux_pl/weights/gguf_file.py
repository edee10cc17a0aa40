"""Tensors of a GGUF file under the keys of their release."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.weights import gguf_header
from tinyflux_pl.weights.gguf_header import MAGIC, GGUFHeader, StoredTensor, corrupt
from tinyflux_pl.weights.gguf_types import NumberType, require_package, type_of
from tinyflux_pl.weights.packed_rows import PackedRows, multiplied_out

# an entry with the shape of a tensor that was flattened, since blocks do not divide its rows
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
# llama.cpp's names of T5; networks of images keep the names of their releases
T5_ARCHITECTURES = ("t5encoder", "t5")
T5_LAYERS = {
    "attn_norm": "layer.0.layer_norm",
    "attn_q": "layer.0.SelfAttention.q",
    "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "ffn_norm": "layer.1.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
}
T5_ENDS = {
    "token_embd.weight": "shared.weight",
    "enc.output_norm.weight": "encoder.final_layer_norm.weight",
    "output.weight": "lm_head.weight",
}


def is_gguf(path: str | Path) -> bool:
    """True if a file begins as GGUF does, whatever its name."""
    with open(path, "rb") as handle:
        return handle.read(len(MAGIC)) == MAGIC


def outlines(path: str | Path) -> dict[str, Tensor]:
    """Every tensor on the meta device, fp32 where it is packed, by the header.

    Raises MissingDependency without the package gguf, what gguf_header.read does,
    CheckpointMismatch for a type that the package does not multiply out, and CorruptCheckpoint for
    a tensor that is not inside the file.
    """
    header = gguf_header.read(path)
    return {
        _key(name, header): torch.empty(_shape(name, header, path), dtype=kind.dtype, device="meta")
        for name, _, kind, _ in _stored(header, path)
    }


def tensors(path: str | Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Every tensor: packed ones in `dtype`, one after the other; the others mapped from the file.

    Raises what `outlines` does.
    """
    return {key: multiplied_out(value) for key, value in packed_tensors(path, dtype)}


def packed_tensors(
    path: str | Path, dtype: torch.dtype = torch.float32, *, meta: bool = False
) -> Iterator[tuple[str, Tensor]]:
    """Key and tensor, mapped from the file; rows of blocks as PackedRows of `dtype`.

    With `meta` on the meta device, by the header alone. A tensor that was flattened is multiplied
    out. Raises what `outlines` does.
    """
    import numpy as np

    header = gguf_header.read(path)
    stored = list(_stored(header, path))
    # private pages, which are never written back
    content = None if meta else torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c"))
    for name, info, kind, length in stored:
        if content is None:
            numbers = torch.empty(length, dtype=torch.uint8, device="meta")
        else:
            numbers = content[info.start : info.start + length]
        yield _key(name, header), _shaped(numbers, info, kind, dtype, _shape(name, header, path))


def block_types(path: str | Path) -> set[str]:
    """Names of the types in which the tensors of a file are packed, such as Q4_K."""
    header = gguf_header.read(path)
    return {kind.name for _, _, kind, _ in _stored(header, path) if kind.packs}


def _shaped(
    content: Tensor,
    info: StoredTensor,
    kind: NumberType,
    dtype: torch.dtype,
    shape: tuple[int, ...],
) -> Tensor:
    """The tensor of these bytes."""
    if not kind.packs:
        return content.view(kind.dtype).reshape(shape)
    rows = PackedRows(content.reshape(*info.shape[:-1], -1), kind, dtype)
    return rows if shape == info.shape else rows.numbers().reshape(shape)


def _stored(
    header: GGUFHeader, path: str | Path
) -> Iterator[tuple[str, StoredTensor, NumberType, int]]:
    """Name, place, type and bytes of every tensor."""
    require_package(str(path))
    size = Path(path).stat().st_size
    left = size
    for name, info in header.tensors.items():
        kind = type_of(info.kind)
        if kind is None:
            what = f"{name[:200]} is packed as GGUF's type {info.kind}"
            cure = "give a file in Q8_0, Q6_K, Q5_K, Q4_K, BF16 or F16"
            raise CheckpointMismatch(what, where=str(path), cure=cure)
        length = kind.length(info.shape)
        if length is None:
            raise corrupt(path, f"rows of {name[:80]!r}, {info.shape}, in blocks of {kind.block}")
        left -= length
        # tensors that share their bytes would take more memory than the file has
        if info.start + length > size or left < 0:
            raise corrupt(path, f"{name[:80]!r} takes {length:,} bytes more than there are")
        yield name, info, kind, length


def _shape(name: str, header: GGUFHeader, path: str | Path) -> tuple[int, ...]:
    """A tensor's shape, or the one that it had before it was flattened."""
    shape = header.tensors[name].shape
    original = header.entries.get(f"{ORIGINAL_SHAPE}{name}")
    if original is None:
        return shape
    sides = original if isinstance(original, list) else []
    if any(type(side) is not int or side < 1 for side in sides) or math.prod(sides) != math.prod(
        shape
    ):
        raise corrupt(path, f"{name[:80]!r} of shape {shape} is said to have {original!r}")
    return tuple(int(side) for side in sides)


def _key(name: str, header: GGUFHeader) -> str:
    """The key that transformers has for it, of T5; else the name."""
    if header.entries.get("general.architecture") not in T5_ARCHITECTURES:
        return name
    if name in T5_ENDS:
        return T5_ENDS[name]
    layer = re.fullmatch(r"enc\.blk\.(\d+)\.(\w+)\.weight", name)
    if not layer or layer[2] not in T5_LAYERS:
        return re.sub(r"^dec\.", "decoder.", name)
    leaf = T5_LAYERS[layer[2]]
    if layer[2] == "ffn_up" and f"enc.blk.{layer[1]}.ffn_gate.weight" not in header.tensors:
        leaf = "layer.1.DenseReluDense.wi"  # of the first version, without a gate
    return f"encoder.block.{layer[1]}.{leaf}.weight"
