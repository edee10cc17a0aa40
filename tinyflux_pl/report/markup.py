"""HTML from Python: everything that is not Markup is escaped, so that no text can become a tag."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

from tinyflux_pl.core.printable import printable

VOID = frozenset(("br", "hr", "img", "input", "meta", "link"))


class Markup(str):
    """HTML that needs no more escaping."""

    __slots__ = ()


Child = str | int | float | None | Iterable[Any]


def text(value: object) -> Markup:
    """The value as text: control characters as escapes, HTML's own characters as entities."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(printable(str(value)), quote=True))


def tag(name: str, /, *children: Child, **attributes: Any) -> Markup:
    """An element. An attribute `class_` is class, `data_x` data-x; None and False leave it out.

    True writes the bare name. Children may be nested lists; None is left out.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after another, each escaped unless it is Markup."""
    return Markup("".join(_child(child) for child in children))


def data_block(key: str, value: Any) -> Markup:
    """Plain data for the page's script, in an element that browsers never run."""
    content = json.dumps(value, allow_nan=False, separators=(",", ":"), sort_keys=True)
    for character in "<>&\u2028\u2029":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{text(key)}">{content}</script>')


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, str | int | float):
        return text(child)
    return join(child)


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(value)}"'
