"""Checks of arguments against a target's signature: names, and values by their annotations."""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyflux_pl.config import open_keywords
from tinyflux_pl.core.errors import ConfigError

_REFUSED = object()
_NAMES = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    None: "null",
}


def nearest(word: str, candidates: Collection[str], count: int = 1) -> list[str]:
    """The closest candidates to a mistyped dotted key, best first.

    Candidates of the same node (with the word as prefix, then similar ones) come before those with
    the same last part elsewhere, and those before similar ones anywhere. For a word without dots,
    which may be a key deeper down, the same last part comes first.
    """
    parent, dot, leaf = word.rpartition(".")
    by_depth = sorted((c for c in candidates if c != word), key=lambda c: (c.count("."), c))
    same_leaf = [c for c in by_depth if c.rpartition(".")[2] == leaf]
    siblings = [c for c in by_depth if c.rpartition(".")[0] == parent]
    longer = sorted(
        (c for c in siblings if len(leaf) > 1 and c.startswith(word)), key=lambda c: (len(c), c)
    )
    same_node = longer + difflib.get_close_matches(word, siblings, n=count, cutoff=0.7)
    similar = difflib.get_close_matches(word, by_depth, n=count, cutoff=0.7)
    ranked = (same_node + same_leaf if dot else same_leaf + same_node) + similar
    if not ranked:
        by_leaf: dict[str, str] = {}
        group = word.partition(".")[0]
        for candidate in (c for c in by_depth if not dot or c.partition(".")[0] == group):
            by_leaf.setdefault(candidate.rsplit(".", 1)[-1], candidate)
        ranked = [by_leaf[m] for m in difflib.get_close_matches(leaf, by_leaf, n=count, cutoff=0.7)]
        ranked = ranked or difflib.get_close_matches(word, by_depth, n=count, cutoff=0.55)
    return list(dict.fromkeys(ranked))[:count]


def suggestion(word: str, candidates: Collection[str]) -> str:
    """ "did you mean ...? " for the nearest candidate, or ""."""
    near = nearest(word, candidates)
    return f"did you mean {near[0]}? " if near else ""


def check(
    target: Any,
    arguments: Mapping[str, Any],
    where: str,
    extra: Collection[str] = (),
    *,
    complete: bool = True,
    name: str | None = None,
) -> dict[str, Any]:
    """The values converted to the target's annotations; ConfigError for a wrong name or type.

    `extra` are names that code adds later; `complete` requires every parameter without a default.
    `name` is the target's name in messages; None: its dotted name.
    """
    name = name or f"{target.__module__}.{target.__qualname__}"
    hints = _hints(target)
    named, open_ended = {}, False
    for key, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            keywords = open_keywords.hints(target, hints.get(key))
            open_ended = keywords is None
            hints.update(keywords or {})
            named |= {
                name: inspect.Parameter(name, parameter.KEYWORD_ONLY, default=None)
                for name in keywords or {}
            }
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            named[key] = parameter
    offered = [key for key in named if key not in extra]
    takes = f"it takes: {', '.join(offered) or 'nothing'}"
    for key in (*arguments, *extra):
        if key not in named and not open_ended:
            full_key = f"{where}.{key}" if where else key
            cure = suggestion(key, offered) + takes
            raise ConfigError(f"{name} takes no {key!r}", where=full_key, cure=cure)
    required = (k for k, p in named.items() if p.default is p.empty)
    missing = [k for k in required if k not in arguments and k not in extra]
    if complete and missing:
        raise ConfigError(f"{name} needs {', '.join(missing)}", where=where, cure=takes)
    prefix = f"{where}." if where else ""
    return {k: _fitted(v, hints.get(k, Any), f"{prefix}{k}") for k, v in arguments.items()}


def _hints(target: Any) -> dict[str, Any]:
    """Annotations as objects; {} where they need names imported under TYPE_CHECKING alone."""
    try:
        return typing.get_type_hints(
            target.__init__ if inspect.isclass(target) else target, include_extras=True
        )
    except (NameError, TypeError, AttributeError):
        return {}


def _fitted(value: Any, annotation: Any, where: str) -> Any:
    fitted = fit(value, annotation)
    if fitted is _REFUSED:
        key, kind = where.rsplit(".", 1)[-1], _described(annotation)
        what = f"{key} must be {kind}, got {value!r}"
        raise ConfigError(what, where=where, cure=f"set {where} to {kind}")
    return fitted


def _described(annotation: Any) -> str:
    """The annotation in words."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_described(a) for a in arguments)
    if origin is typing.Literal:
        return (
            f"one of {', '.join(map(str, arguments))}" if len(arguments) > 1 else str(arguments[0])
        )
    if dict in (origin, annotation) or origin is Mapping:
        return "a mapping of names to values"
    if origin in (tuple, list, Sequence):
        return f"a list, each {_described(arguments[0])}" if arguments else "a list"
    return _NAMES.get(annotation) or getattr(annotation, "__name__", str(annotation))


def fit(value: Any, annotation: Any) -> Any:
    """A plain value in the declared type (list -> tuple, int -> float, str -> Path), or _REFUSED.

    Annotations other than plain types accept every value.
    """
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if any(type(value) is a for a in arguments):
            return value
        tried = (fit(value, a) for a in arguments)
        return next((f for f in tried if f is not _REFUSED), _REFUSED)
    if origin is typing.Literal:
        return value if value in arguments else _REFUSED
    if annotation is None or annotation is type(None):
        return value if value is None else _REFUSED
    kind = {Sequence: list, Mapping: dict}.get(origin, origin or annotation)
    if kind in (tuple, list):
        return _fit_sequence(value, kind, arguments)
    if kind is dict:
        return _fit_mapping(value, arguments)
    if annotation is float and type(value) is int:
        return float(value) if abs(value) < 2**1000 else _REFUSED
    if annotation is Path and isinstance(value, str):
        return Path(value)
    if annotation in (int, float, str, bool):
        return value if type(value) is annotation else _REFUSED
    return value


def _fit_sequence(value: Any, kind: type, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(value, list | tuple):
        return _REFUSED
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(arguments) != len(value):
            return _REFUSED
        items = [fit(v, a) for v, a in zip(value, arguments, strict=True)]
    else:
        items = [fit(v, arguments[0] if arguments else Any) for v in value]
    return _REFUSED if any(i is _REFUSED for i in items) else kind(items)


def _fit_mapping(value: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(value, Mapping):
        return _REFUSED
    kind, inner = arguments or (Any, Any)
    items = {fit(k, kind): fit(v, inner) for k, v in value.items()}
    return _REFUSED if any(k is _REFUSED or v is _REFUSED for k, v in items.items()) else items
