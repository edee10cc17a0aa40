"""Modules that compute alike on the meta device: same code, settings and shapes."""

from __future__ import annotations

from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

# numbers by which a layer finds its rows in a cache of keys, which is an argument of its own
NUMBERS = {"layer_idx"}
PLAIN = (int, float, complex, str, bytes, set, frozenset, torch.dtype, torch.device, torch.Size)
HOOKS = {name for name in vars(nn.Module()) if name.endswith(("_hooks", "_hooks_with_kwargs"))}
HOOKS |= {"_forward_hooks_always_called"}
HEAP_TYPE = 1 << 9  # flag of a class that was defined in Python


def equal_forward(one: nn.Module, two: nn.Module) -> bool:
    """True if the forward methods of two modules compute alike, including their hooks."""
    compared = {(id(one), id(two))}
    attributes = [{k: v for k, v in vars(m).items() if k not in HOOKS} for m in (one, two)]
    return type(one) is type(two) and equal(*attributes, compared)


def equal(one: Any, two: Any, compared: set[tuple[int, int]] | None = None) -> bool:
    """True if two modules have equal classes, attributes and submodules, and shapes of tensors.

    Values of tensors are not compared. Attributes are compared in depth; of objects of C,
    whose content is not seen, only the same one is equal. `compared` are pairs whose comparison has
    begun.
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
            key in NUMBERS or equal(*_numberless(key, value, two[key]), compared)
            for key, value in one.items()
        )
    if isinstance(one, list | tuple):
        if len(one) != len(two):
            return False
        return all(equal(a, b, compared) for a, b in zip(one, two, strict=True))
    if isinstance(one, partial):
        return equal(_parts(one), _parts(two), compared)
    if isinstance(one, MethodType):
        return one.__func__ is two.__func__ and equal(one.__self__, two.__self__, compared)
    if isinstance(one, FunctionType):
        same = one.__code__ is two.__code__ and one.__globals__ is two.__globals__
        return same and equal(_captured(one), _captured(two), compared)
    return _of_python(one) and equal(vars(one), vars(two), compared)


def outline(tensor: Tensor) -> tuple[Any, ...]:
    """Shape, dtype and other metadata of a tensor, without values."""
    layout = (tensor.shape, tensor.stride(), tensor.storage_offset())
    flags = (tensor.requires_grad, tensor.is_conj(), tensor.is_neg())
    return (type(tensor), tensor.dtype, tensor.device, *layout, *flags)


def _numberless(key: Any, one: Any, two: Any) -> tuple[Any, Any]:
    """Two attributes; hooks by their order, without the numbers that torch gives them."""
    if key in HOOKS and isinstance(one, dict) and isinstance(two, dict):
        return list(one.values()), list(two.values())
    return one, two


def _captured(function: FunctionType) -> tuple[Any, ...]:
    """Values that a function holds besides its code."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return cells, function.__defaults__, function.__kwdefaults__, vars(function)


def _parts(call: partial[Any]) -> tuple[Any, ...]:
    return call.func, call.args, call.keywords


def _of_python(value: Any) -> bool:
    """True if the attributes of an object are its whole state."""
    classes = type(value).__mro__[:-1]
    plain = all(cls.__flags__ & HEAP_TYPE and not vars(cls).get("__slots__") for cls in classes)
    return plain and hasattr(value, "__dict__") and not isinstance(value, type)
