"""Dotted keys of nested plain containers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def dotted(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of nested plain containers, inner nodes and list positions included."""
    pairs = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in pairs:
        name = f"{prefix}.{key}" if prefix else str(key)
        yield name, value
        yield from dotted(value, name)


def missing_keys(raw: Any) -> list[str]:
    """Keys that only the user can give (???).

    OmegaConf's own list fails on interpolations to them.
    """
    return [key for key, value in dotted(raw) if value == "???"]
