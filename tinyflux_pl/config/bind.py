"""Bind plain nodes to frozen dataclasses: key names, types and ranges come from the annotations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, ClassVar, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from tinyflux_pl.config import signatures
from tinyflux_pl.core.errors import ConfigError

K = TypeVar("K", bound="Keys")


@dataclass(frozen=True)
class Range:
    """The finite numbers from `least` to `most`, `above` and `below` excluded."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        finite = isinstance(value, int) or math.isfinite(value)  # an int may exceed every float
        return finite and self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        limits = {
            "at least": self.least,
            "at most": self.most,
            "above": self.above,
            "below": self.below,
        }
        finite = (f"{word} {n:g}" for word, n in limits.items() if math.isfinite(n))
        return "a number " + " and ".join(finite)


class NotEmpty:
    """Any text except the empty string."""

    def __contains__(self, value: Any) -> bool:
        return value != ""

    def __str__(self) -> str:
        return "a name or a path"


@dataclass(frozen=True)
class Keys:
    """Base of the typed nodes: a subclass declares its keys, with ranges in Annotated.

    Raises ConfigError for a value out of its range.
    """

    open_ended: ClassVar[bool] = False  # True: undeclared keys are allowed, and stay in `plain`

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            for limit in _limits(hint):
                value = getattr(self, name)
                for number in value if isinstance(value, list) else [value]:
                    if number is not None and number not in limit:
                        raise ConfigError(f"{name} is {value}", where=name, cure=str(limit))

    @property
    def plain(self) -> dict[str, Any]:
        """The node as plain containers, exactly as it was bound, undeclared keys included."""
        return vars(self)["_plain"]

    def replace(self, **changes: Any) -> Self:
        """A copy with other values, checked again; typed nodes are accepted."""
        values = {k: v.plain if isinstance(v, Keys) else v for k, v in changes.items()}
        return bind(type(self), {**self.plain, **values}, "")


def bind(kind: type[K], node: Any, where: str) -> K:
    """Convert a plain node, and the nodes inside it, to a typed node.

    `where` is the dotted key of the node. Raises ConfigError with the dotted key at fault.
    """
    hints = get_type_hints(kind)
    hints = {field.name: hints[field.name] for field in fields(kind)}  # without its ClassVars
    _require_mapping(node, where, hints)
    if not kind.open_ended:
        _refuse_unknown_keys(node, where, hints)
    declared = {name: value for name, value in node.items() if name in hints}
    values = signatures.check(kind, declared, where, name=where or "the command")
    for name, value in values.items():
        key = _join(where, name)
        is_dict = get_origin(hints[name]) is dict
        inner = get_args(hints[name])[1] if is_dict else _without_none(hints[name])
        if not (isinstance(inner, type) and issubclass(inner, Keys)):
            continue
        if value is None and inner is not hints[name]:
            continue
        if is_dict:
            _require_mapping(value, key, ["NAME"])
            values[name] = {k: bind(inner, v, _join(key, k)) for k, v in value.items()}
        else:
            values[name] = bind(inner, value, key)
    try:
        bound = kind(**values)
    except ConfigError as error:
        where = _join(where, error.where)
        raise ConfigError(error.what, where=where, cure=error.cure) from None
    vars(bound)["_plain"] = dict(node)
    return bound


def _refuse_unknown_keys(node: Mapping[str, Any], where: str, hints: Mapping[str, Any]) -> None:
    keys = {_join(where, name) for name in hints}
    for name in node:
        if name not in hints:
            key = _join(where, name)
            cure = signatures.suggestion(key, keys) + "leave it out"
            raise ConfigError(f"nothing reads {key}", where=key, cure=cure)


def _limits(hint: Any) -> list[Any]:
    """The limits of an annotation: of Annotated[X, LIMIT], also within `... | None`."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return [limit for kind in kinds for limit in getattr(kind, "__metadata__", ())]


def _without_none(hint: Any) -> Any:
    """X of `X | None`; any other annotation itself."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    is_optional = get_origin(hint) is UnionType and len(kinds) == 1
    return kinds[0] if is_optional else hint


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _require_mapping(node: Any, where: str, keys: Iterable[str]) -> None:
    if not isinstance(node, Mapping):
        cure = f"it holds {', '.join(keys)}: {where}.KEY=..."
        raise ConfigError(f"{where} is {node!r}", where=where, cure=cure)
