"""Components described by an earlier run's file: known targets and plain values only.

The config.json and replay.json of a run's folder may come from anyone. So a `_target_` in them must
be one that conf/ offers for that group, or that the present command line has chosen itself.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tinyflux_pl.config import allowlist
from tinyflux_pl.config.build import build
from tinyflux_pl.config.renamed_targets import current_target
from tinyflux_pl.core.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf"
PLAIN = (bool, int, float, str, type(None))
LONGEST = 1000  # characters of a text, entries of a list
DEEPEST = 8


def build_saved(node: Any, group: str, now: Any, where: str, **extra: Any) -> Any:
    """Build the node of a group from a saved file; `now` is the group in this configuration.

    Raise ConfigError for a target that neither conf/GROUP/ nor `now` names, or a value that is no
    plain one.
    """
    require_saved(node, group, now, where)
    try:
        return build(node, **extra)
    except (TypeError, ValueError, ArithmeticError) as error:
        what = f"{group} cannot be built as this file describes it: {error}"
        raise ConfigError(what, where=where, cure="use a file written by your own run") from error


def require_saved(node: Any, group: str, now: Any, where: str) -> None:
    """Raise ConfigError unless `build_saved` would build the node."""
    chosen = {current_target(name) for _, name in allowlist.targets(now) if isinstance(name, str)}
    allowed = offered(group) | chosen
    cure = f"choose it yourself, {group}=NAME, if this run is yours"
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{group} is not described in this file", where=where, cure=cure)
    for name in (name for _, name in allowlist.targets(node)):
        if not isinstance(name, str) or current_target(name) not in allowed:
            raise ConfigError(f"this file asks for {name!r} as {group}", where=where, cure=cure)
    for key, value in _values(node):
        if type(value) not in PLAIN or (isinstance(value, str) and len(value) > LONGEST):
            what = f"{group}.{key} is not a plain value in this file"
            raise ConfigError(what, where=where, cure="use a file written by your own run")


@functools.cache
def offered(group: str) -> frozenset[str]:
    """The targets that this project's conf/GROUP/ names."""
    from omegaconf import OmegaConf

    names: set[str] = set()
    for file in sorted((CONF / group).glob("*.yaml")):
        raw = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        names |= {name for _, name in allowlist.targets(raw) if isinstance(name, str)}
    return frozenset(names)


def _values(node: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf; a container that is too deep or long counts as one."""
    pairs: Any = node.items() if isinstance(node, Mapping) else enumerate(node)
    if depth > DEEPEST or len(node) > LONGEST:
        yield prefix, node
        return
    for key, value in pairs:
        inner = f"{prefix}.{key}".lstrip(".")
        if isinstance(value, Mapping | list):
            yield from _values(value, inner, depth + 1)
        else:
            yield inner, value
