"""Hash (once a process) and tensor shapes of a weight file, without loading it."""

from __future__ import annotations

import json
import math
import os
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from tinyflux_pl.core.errors import CheckpointMismatch, CorruptCheckpoint
from tinyflux_pl.core.files import require_tensor_file, sha256
from tinyflux_pl.weights.bitsandbytes_weights import STATE_LIMIT, is_state

FORMATS_KEY = "_quantization_metadata"
TYPES = {  # of a safetensors header
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def known_sha256(path: str | Path) -> str:
    """sha256 (hex) of a file, cached in this process by path, size and times."""
    status = os.stat(path)
    return _sha256(
        str(Path(path).absolute()),
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


@lru_cache(maxsize=1024)
def _sha256(path: str, *_: int) -> str:
    return sha256(path)


def tensor_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a safetensors file, from its header.

    Raises UntrustedFile for a pickle under that name, CorruptCheckpoint for a truncated file.
    """
    return {name: shape for name, (shape, _) in _header(path).items()}


def metadata_of(path: str | Path) -> dict[str, str]:
    """The texts in a safetensors file's header; raises as `tensor_shapes` does."""
    from safetensors import SafetensorError, safe_open

    require_tensor_file(path)
    try:
        with safe_open(path, "pt") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError as error:
        what = f"not a complete safetensors file: {error}"
        raise CorruptCheckpoint(what, where=str(path), cure="fetch it again") from error


def packed_formats(path: str | Path) -> dict[str, Tensor]:
    """The formats of packed layers that a header names, as the tensors that name them elsewhere.

    ComfyUI's tools write LAYER.comfy_quant, or one JSON object in the header that it reads alike.
    CorruptCheckpoint for an entry that is no such object; else raises as `tensor_shapes` does.
    """
    text = metadata_of(path).get(FORMATS_KEY)
    if text is None:
        return {}
    try:
        layers = dict(json.loads(text)["layers"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{FORMATS_KEY} in its header is no description of layers"
        raise CorruptCheckpoint(what, where=str(path), cure="fetch it again") from error
    described = {name: json.dumps(entry).encode() for name, entry in layers.items()}
    return {
        f"{name}.comfy_quant": torch.tensor(list(entry), dtype=torch.uint8)
        for name, entry in described.items()
    }


def outlines(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file on the meta device: shape and dtype by its header.

    Raises what `tensor_shapes` does, and CheckpointMismatch for a type that only packed weights
    have. Values are read of what tells a packed weight's shape alone (bitsandbytes_weights).
    """
    tensors = {}
    states = _states(path)
    for name, (shape, kind) in _header(path).items():
        if kind not in TYPES:
            cure = "give the same release in bfloat16, float16, float32 or float8"
            raise CheckpointMismatch(
                f"{name[:200]} is packed as {kind}", where=str(path), cure=cure
            )
        empty = torch.empty(shape, dtype=TYPES[kind], device="meta")
        tensors[name] = states.get(name, empty)
    return tensors


def _states(path: str | Path) -> dict[str, Tensor]:
    """The tensors that describe weights packed by bitsandbytes, of a file that has any."""
    from safetensors import safe_open

    described = {name: shape for name, shape in tensor_shapes(path).items() if is_state(name)}
    small = [name for name, shape in described.items() if math.prod(shape) <= STATE_LIMIT]
    if not small:
        return {}
    with safe_open(path, "pt") as opened:
        return {name: opened.get_tensor(name) for name in small}


def _header(path: str | Path) -> dict[str, tuple[tuple[int, ...], str]]:
    from safetensors import SafetensorError, safe_open

    require_tensor_file(path)
    try:
        with safe_open(path, "pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {name: (tuple(cut.get_shape()), cut.get_dtype()) for name, cut in slices.items()}
    except SafetensorError as error:
        what = f"not a complete safetensors file: {error}"
        raise CorruptCheckpoint(what, where=str(path), cure="fetch it again") from error
