"""A node of plain values as a frozen dataclass: names and types from its annotations, numbers within their range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from tinyflux_pl.config import signatures
from tinyflux_pl.core.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """The finite numbers from `least` to `most`, `above` and `below` excluded."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        finite = isinstance(value, int) or math.isfinite(value)  # an int may be too large to be a float
        return finite and self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        told = {"at least": self.least, "at most": self.most, "above": self.above, "below": self.below}
        return "a number " + " and ".join(f"{word} {n:g}" for word, n in told.items() if math.isfinite(n))


class NotEmpty:
    """Any text but the empty one."""

    def __contains__(self, value: Any) -> bool:
        return value != ""

    def __str__(self) -> str:
        return "a name or a path"


@dataclass(frozen=True)
class Keys:
    """One node. ConfigError for a value out of its range, which is what stands beside the type in Annotated."""

    others: ClassVar[bool] = False  # whether the node may hold more

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            for limit in getattr(hint, "__metadata__", ()):
                value = getattr(self, name)
                for number in value if isinstance(value, list) else [value]:
                    if number is not None and number not in limit:
                        raise ConfigError(f"{name} is {value}", where=name, cure=str(limit))


def bind(kind: type[Keys], node: Any, where: str) -> Keys:
    """The plain node as its class, the nodes in it too; ConfigError with the dotted key, `where` being the node's."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name in kind.__dataclass_fields__}
    _require_node(node, where, hints)
    known = {_join(where, name) for name in hints}
    for name in node if not kind.others else ():
        if name not in hints:
            key = _join(where, name)
            raise ConfigError(
                f"nothing reads {key}", where=key, cure=signatures.suggestion(key, known) + "leave it out"
            )
    given = {name: value for name, value in node.items() if name in hints}
    values = signatures.check(kind, given, where, name=where or "the command")
    for name, value in values.items():
        place, hint = _join(where, name), hints[name]
        several = get_origin(hint) is dict
        inner = get_args(hint)[1] if several else hint
        if isinstance(inner, type) and issubclass(inner, Keys):
            if several:
                _require_node(value, place, ["NAME"])
                values[name] = {key: bind(inner, held, _join(place, key)) for key, held in value.items()}
            else:
                values[name] = bind(inner, value, place)
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(error.what, where=_join(where, error.where), cure=error.cure) from None


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _require_node(node: Any, where: str, keys: Iterable[str]) -> None:
    if not isinstance(node, Mapping):
        raise ConfigError(f"{where} is {node!r}", where=where, cure=f"it holds {', '.join(keys)}: {where}.KEY=...")
