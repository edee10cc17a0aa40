"""Empty mappings on the command line: Hydra merges them, so they have no effect."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from tinyflux_pl.core.errors import ConfigError


def check(overrides: Sequence[Override], config: Any) -> None:
    """Raise ConfigError for an empty mapping at a key with entries in the composed `config`."""
    keys = [key for override in overrides for key in _empty(override)]
    node = OmegaConf.to_container(config, resolve=False) if keys else {}
    for key in keys:
        current = _at(node, key)
        if isinstance(current, Mapping) and current:
            names = list(map(str, current))
            entries = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            what = f"{key}={{}} is merged and would change nothing: {key} has {entries}"
            other = (
                f"take an entry out by its name: ~{key}.NAME"
                if "." in key
                else f"choose another: {key}=NAME"
            )
            cure = f"leave it out, or {other}"
            raise ConfigError(what, where=key, cure=cure)


def _empty(override: Override) -> Iterator[str]:
    """The dotted keys that an override sets to an empty mapping, inner ones included."""
    if override.is_delete() or override.is_sweep_override() or override.key_or_group is None:
        return
    left: list[tuple[str, Any]] = [(override.key_or_group, override.value())]
    while left:
        key, value = left.pop()
        if isinstance(value, Mapping):
            left += [(f"{key}.{name}", inner) for name, inner in value.items()]
            if not value:
                yield key


def _at(node: Any, key: str) -> Any:
    for name in re.split(r"[.\[\]]+", key.rstrip("]")):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node
