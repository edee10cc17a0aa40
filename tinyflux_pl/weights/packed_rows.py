"""A tensor subclass that keeps GGUF blocks instead of the numbers that they encode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from tinyflux_pl.weights.gguf_types import NumberType

aten = torch.ops.aten
SAME = (aten.detach.default, aten.alias.default)
ROWS = 0  # the only dimension along which blocks are whole


class PackedRows(Tensor):
    """Shape (..., K) and dtype of the numbers; `blocks` (..., K / block * size) uint8.

    A conversion between layouts may split, cut and join it along its first dimension, since blocks
    lie within rows. Any other operation reads the numbers, multiplied out by the package gguf.
    """

    blocks: Tensor
    kind: NumberType

    # operations arrive below as aten's
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, blocks: Tensor, kind: NumberType, dtype: torch.dtype) -> PackedRows:
        shape = (*blocks.shape[:-1], blocks.shape[-1] // kind.size * kind.block)
        rows = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=blocks.device)
        rows.blocks, rows.kind = blocks, kind
        return rows

    def numbers(self) -> Tensor:
        """The numbers in its dtype: in fp32 what the package gguf returns, then rounded."""
        if self.blocks.is_meta:
            return torch.empty(self.shape, dtype=self.dtype, device="meta")
        return self.kind.values(self.blocks.contiguous(), tuple(self.shape), self.dtype)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"PackedRows({self.kind.name}, {tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in SAME:
            return _like(args[0], args[0].blocks)
        if func is aten.cat.default and _joins_rows(*args, **kwargs):
            return _like(args[0][0], torch.cat([rows.blocks for rows in args[0]]))
        if func in CUTS and _dimension(func, args, kwargs) == ROWS:
            cut = func(args[0].blocks, *args[1:], **kwargs)
            return tree_map(lambda blocks: _like(args[0], blocks), cut)
        if func._schema.is_mutable:
            raise TypeError(f"{func} would change numbers that are not kept")
        return func(*tree_map(multiplied_out, args), **tree_map(multiplied_out, kwargs))


# operations that cut along a dimension -> its position among their arguments
CUTS = {
    aten.split.Tensor: 2,
    aten.split_with_sizes.default: 2,
    aten.slice.Tensor: 1,
}


def multiplied_out(value: Any) -> Any:
    """The numbers of a PackedRows; any other tensor as it is."""
    return value.numbers() if isinstance(value, PackedRows) else value


def stored_bytes(value: Tensor) -> Tensor:
    """The stored bytes of a tensor, (n,) uint8."""
    sliced = value.blocks if isinstance(value, PackedRows) else value
    return sliced.contiguous().reshape(-1).view(torch.uint8)


def _like(rows: PackedRows, blocks: Tensor) -> PackedRows:
    return PackedRows(blocks, rows.kind, rows.dtype)


def _joins_rows(tensors: list[Any], dim: int = 0) -> bool:
    """True if all are packed alike: blocks of another type may have the same size."""
    if dim != ROWS or not all(isinstance(each, PackedRows) for each in tensors):
        return False
    return len({(each.kind, each.dtype, each.shape[1:]) for each in tensors}) == 1


def _dimension(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    position = CUTS[func]
    return args[position] if len(args) > position else kwargs.get("dim", 0)
