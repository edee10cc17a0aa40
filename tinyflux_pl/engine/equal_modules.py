"""Modules that compute in the same way on the meta device: same code, settings and shapes."""

from __future__ import annotations

from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

# numbers by which a layer finds its rows in a cache of keys, which is an argument of its own
NUMBERS = {"layer_idx"}
PLAIN = (int, float, complex, str, bytes, set, frozenset, torch.dtype, torch.device, torch.Size)
HEAP_TYPE = 1 << 9  # flag of a class that was defined in Python


def equal(one: Any, two: Any, compared: set[tuple[int, int]] | None = None) -> bool:
    """True if two modules have equal classes, attributes and submodules, and tensors of one shape.

    Values of tensors are not compared. Attributes are compared in depth; of those whose content is
    not seen (functions with closures, objects of C) only the same object is equal. `compared` are
    pairs whose comparison has begun.
    """
    compared = set() if compared is None else compared
    pair = (id(one), id(two))
    if one is two or pair in compared:
        return True
    if type(one) is not type(two):
        return False
    compared.add(pair)
    if isinstance(one, PLAIN):
        return one == two
    if isinstance(one, Tensor):
        return outline(one) == outline(two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(
            key in NUMBERS or equal(value, two[key], compared) for key, value in one.items()
        )
    if isinstance(one, list | tuple):
        values = zip(one, two, strict=False)
        return len(one) == len(two) and all(equal(a, b, compared) for a, b in values)
    if isinstance(one, partial):
        return equal(_parts(one), _parts(two), compared)
    if isinstance(one, MethodType):
        return one.__func__ is two.__func__ and equal(one.__self__, two.__self__, compared)
    return _of_python(one) and equal(vars(one), vars(two), compared)


def outline(tensor: Tensor) -> tuple[Any, ...]:
    """All but the values of a tensor."""
    place = (tensor.shape, tensor.stride(), tensor.storage_offset())
    flags = (tensor.requires_grad, tensor.is_conj(), tensor.is_neg())
    return (type(tensor), tensor.dtype, tensor.device, *place, *flags)


def _parts(call: partial[Any]) -> tuple[Any, ...]:
    return call.func, call.args, call.keywords


def _of_python(value: Any) -> bool:
    """True if the attributes of an object are all that it has."""
    classes = type(value).__mro__[:-1]
    plain = all(cls.__flags__ & HEAP_TYPE and not vars(cls).get("__slots__") for cls in classes)
    return plain and hasattr(value, "__dict__") and not isinstance(value, FunctionType | type)
