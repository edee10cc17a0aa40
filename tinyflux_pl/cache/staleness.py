"""What makes a cache stale: the named parts in which it and the run differ."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tinyflux_pl.core.errors import StaleCache
from tinyflux_pl.core.fingerprint import canonical
from tinyflux_pl.core.interpreter import command, extraction


def rebuild() -> str:
    """The command that makes the run's caches anew."""
    return f"write it again: {extraction('rebuild=true')}"


def mend(root: Path) -> str:
    """The commands that mend a store of which some bytes are not those that were written."""
    return f"{repair(root)}; then run this again: it writes just what was damaged"


def repair(root: Path) -> str:
    """The command that takes a store's damaged shards out."""
    return f"{command('extract.py')} {shlex.quote(f'doctor={root}')} repair=true"


@runtime_checkable
class Described(Protocol):
    """Anything that knows its folder, and its groups with their fingerprints."""

    root: Path

    def groups(self) -> dict[str, dict[str, Any]]: ...
    def complete(self, group: str) -> bool: ...


def plain(value: Any) -> Any:
    """The value as JSON gives it back (tuples become lists), so that memory and file compare equal."""
    return json.loads(canonical(value))


def differences(expected: Any, found: Any, part: str = "") -> list[str]:
    """Where `found` (the cache) differs from `expected` (the run), e.g. "codec.fold: cache 2, run 4"."""
    expected, found = plain(expected), plain(found)
    if isinstance(expected, dict) and isinstance(found, dict):
        lines = []
        for key in sorted(expected.keys() | found.keys()):
            name = f"{part}.{key}" if part else key
            if key not in found:
                lines.append(f"{name}: cache has none, run {_short(expected[key])}")
            elif key not in expected:
                lines.append(f"{name}: cache {_short(found[key])}, run has none")
            else:
                lines += differences(expected[key], found[key], name)
        return lines
    if expected == found and type(expected) is type(found):
        return []
    return [f"{part or 'value'}: cache {_short(found)}, run {_short(expected)}"]


def require_equal(expected: Mapping[str, Any], found: Mapping[str, Any], what: str, where: str, cure: str = "") -> None:
    """Raise StaleCache that names every differing part."""
    lines = differences(dict(expected), dict(found))
    if lines:
        raise StaleCache(f"{what} was made from other inputs: " + "; ".join(lines), where=where, cure=cure or rebuild())


def check(store: Described, group: str, expected: Mapping[str, Any], cure: str = "") -> None:
    """Raise StaleCache unless the group is there, whole, and made from what this run asks for."""
    where, groups, cure = str(store.root / group), store.groups(), cure or rebuild()
    if group not in groups:
        raise StaleCache(
            f"the cache has no {group!r} (it has {', '.join(groups) or 'nothing'})", where=where, cure=cure
        )
    require_equal(expected, groups[group], f"the cached {group!r}", where, cure)
    if not store.complete(group):
        raise StaleCache(f"the cached {group!r} is not finished", where=where, cure=cure)


def _short(value: Any) -> str:
    text = canonical(value)
    return text if len(text) <= 80 else text[:60] + f"... ({len(text)} characters)"
