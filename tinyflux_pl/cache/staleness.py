"""Comparison of fingerprints: the differences between a cache and the run, and the cures."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import StaleCache
from tinyflux_pl.core.fingerprint import canonical
from tinyflux_pl.core.interpreter import command, extraction

MAX_VALUE_LENGTH = 80  # characters of a value in a message


def rebuild_hint() -> str:
    """The command that writes the run's caches again."""
    return f"write it again: {extraction('rebuild=true')}"


def repair_hint(root: Path) -> str:
    """The commands that repair a damaged store."""
    return f"{repair_command(root)}; then run this again: it writes just what was damaged"


def repair_command(root: Path) -> str:
    """The command that removes the damaged shards of a store."""
    return f"{command('extract.py')} {shlex.quote(f'doctor={root}')} repair=true"


def plain(value: Any) -> Any:
    """The value as JSON returns it (tuples become lists), so that memory and file compare equal."""
    return json.loads(canonical(value))


def differences(expected: Any, cached: Any, part: str = "") -> list[str]:
    """Differences of `cached` from the run's `expected` values, as "codec.fold: cache 2, run 4"."""
    expected = plain(expected)
    cached = plain(cached)
    if isinstance(expected, dict) and isinstance(cached, dict):
        lines = []
        for key in sorted(expected.keys() | cached.keys()):
            name = f"{part}.{key}" if part else key
            if key not in cached:
                lines.append(f"{name}: cache has none, run {_abbreviated(expected[key])}")
            elif key not in expected:
                lines.append(f"{name}: cache {_abbreviated(cached[key])}, run has none")
            else:
                lines += differences(expected[key], cached[key], name)
        return lines
    if expected == cached and type(expected) is type(cached):
        return []
    return [f"{part or 'value'}: cache {_abbreviated(cached)}, run {_abbreviated(expected)}"]


def require_equal(
    expected: Mapping[str, Any], cached: Mapping[str, Any], what: str, where: str, cure: str = ""
) -> None:
    """Raise StaleCache, naming every differing part."""
    lines = differences(dict(expected), dict(cached))
    if lines:
        message = f"{what} was made from other inputs: {'; '.join(lines)}"
        raise StaleCache(message, where=where, cure=cure or rebuild_hint())


def _abbreviated(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:12]
    text = canonical(value)
    return text if len(text) <= MAX_VALUE_LENGTH else text[:60] + f"... ({len(text)} characters)"
