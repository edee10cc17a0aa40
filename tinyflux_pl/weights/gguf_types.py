"""Number types of GGUF: those of torch, and blocks that the package gguf dequantizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core.errors import MissingDependency

EXTRA = 'pip install -c constraints.txt -e ".[gguf]"'
PLAIN = {  # types whose numbers stand for themselves
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F64": torch.float64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}


@dataclass(frozen=True)
class NumberType:
    """A type: `block` numbers of a row in `size` bytes."""

    number: int
    name: str
    block: int
    size: int

    @property
    def dtype(self) -> torch.dtype:
        """The type that its numbers have in torch: fp32 of packed ones."""
        return PLAIN.get(self.name, torch.float32)

    @property
    def packs(self) -> bool:
        """True if its numbers are multiplied out of blocks."""
        return self.name not in PLAIN

    def length(self, shape: tuple[int, ...]) -> int | None:
        """Bytes of a tensor; None where blocks do not divide its rows."""
        if (shape[-1] if shape else 1) % self.block:
            return None
        return math.prod(shape) // self.block * self.size

    def values(self, content: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Numbers of packed bytes, multiplied out in fp32, then `dtype`."""
        import numpy as np

        rows = content.reshape(*shape[:-1], shape[-1] // self.block * self.size)
        with np.errstate(all="ignore"):  # numbers that are not finite are reported elsewhere
            unpacked = _package().dequantize(rows.numpy(), _library_type(self.number))
        return torch.from_numpy(unpacked).to(dtype)


@cache
def type_of(number: int) -> NumberType | None:
    """The type of that number; None for one that the package does not know or multiply out."""
    import numpy as np

    package = _package()
    try:
        kind = _library_type(number)
    except ValueError:
        return None
    block, size = package.GGML_QUANT_SIZES[kind]
    described = NumberType(number, kind.name, int(block), int(size))
    if described.name in PLAIN:
        return described
    try:
        package.dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError:
        return None
    return described


def _library_type(number: int) -> Any:
    return _package().GGMLQuantizationType(number)


def require_package(where: str) -> None:
    """Raise MissingDependency where the package gguf is not installed."""
    try:
        _package()
    except ImportError as error:
        what = "a GGUF file, which is read by the package gguf, and that is not installed"
        raise MissingDependency(what, where=where, cure=EXTRA) from error


def _package() -> ModuleType:
    import gguf

    return gguf
