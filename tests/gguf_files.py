"""Small GGUF files, written by the package gguf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinyflux_pl.denoisers.gguf_linear import keep_blocks
from tinyflux_pl.weights.gguf_types import type_of
from tinyflux_pl.weights.packed_rows import PackedRows

ROW = 256  # numbers of a block of the K types; image tools flatten matrices of other rows


def write(
    path: Path, tensors: dict[str, Tensor], kind: str = "Q8_0", architecture: str = "flux"
) -> dict[str, Tensor]:
    """Write a file; returns the values that it stands for, fp32.

    Matrices are packed as `kind`, flattened where its blocks do not divide their rows, and F32
    where they divide no row at all; vectors are F32.
    """
    import gguf

    number = gguf.GGMLQuantizationType[kind]
    block = gguf.GGML_QUANT_SIZES[number][0]
    writer = gguf.GGUFWriter(path, architecture)
    # as language models have: it must be passed over
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc"] * 20)
    meant = {}
    for key, value in tensors.items():
        rows = value.detach().float().numpy()
        if rows.ndim > 1 and rows.size % max(block, ROW) == 0 and rows.shape[-1] % block:
            writer.add_array(f"comfy.gguf.orig_shape.{key}", [int(side) for side in rows.shape])
            rows = rows.reshape(-1, ROW)
        if rows.ndim == 1 or rows.shape[-1] % block:
            writer.add_tensor(key, np.ascontiguousarray(rows))
            meant[key] = value.detach().float()
            continue
        content = packed(rows, number)
        writer.add_tensor(key, content, raw_dtype=number)
        values = torch.from_numpy(gguf.quants.dequantize(content, number))
        meant[key] = values.reshape(value.shape)
    for step in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file", "close"):
        getattr(writer, step)()
    return meant


def packed(rows: np.ndarray, number: Any) -> np.ndarray:
    """Rows as bytes; of types that the package only reads, random blocks of small numbers."""
    import gguf

    try:
        return gguf.quants.quantize(rows, number)
    except NotImplementedError:
        shape = gguf.quants.quant_shape_to_byte_shape(rows.shape, number)
        # bytes so small are finite and small as float16
        return np.random.default_rng(rows.size).integers(0, 16, shape, dtype=np.uint8)


def keep(network: nn.Module, kind: str = "Q8_0") -> nn.Module:
    """The network, its linear layers with blocks of that type in place of their weights."""
    import gguf

    number = gguf.GGMLQuantizationType[kind]
    rows = {}
    for name, module in network.named_modules():
        if type(module) is nn.Linear and module.in_features % gguf.GGML_QUANT_SIZES[number][0] == 0:
            content = torch.from_numpy(packed(module.weight.detach().float().numpy(), number))
            rows[f"{name}.weight"] = PackedRows(content, type_of(number), module.weight.dtype)
    network.load_state_dict(keep_blocks(network, rows, "test"), strict=False, assign=True)
    return network
