"""Keys that nothing reads: no recipe by name, no other key by ${...}."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tinyflux_pl.config import data_schema, schema, synonyms
from tinyflux_pl.config.offered_experts import offered_experts
from tinyflux_pl.config.signatures import nearest
from tinyflux_pl.core.errors import ConfigError

NAMED = ("task", "run", "run_dir", "release", "hydra")
# fields that the scripts fill in themselves
ADDED = {"overrides", "flags", "trial", "sweep", "swept"}
DRAWING = (*schema.DRAWN, "timesteps")
# nodes that may hold any key which another one refers to
READ_BY_ALL = tuple(name for name in schema.fields("data") if name not in data_schema.RECORDS)
OPEN = {"data": (*READ_BY_ALL, "image_size"), "teacher": schema.fields("teacher")}
_REFERENCE = re.compile(r"\$\{\s*(?:oc\.\w+:\s*)?(\.*[A-Za-z_][\w.\[\]-]*|\.+\w+)")


def check(raw: Mapping[str, Any], script: str) -> None:
    """Raise ConfigError for the first key of an unresolved configuration that nothing reads.

    The first levels are checked here; deeper keys belong to nodes with their own schema or
    signature.
    """
    groups = DRAWING if script == "generate" else (*schema.NEEDED, "steps", "callbacks")
    first_level = {*schema.fields(script), *groups, *NAMED} - ADDED
    referred = set(references(raw))
    experts = raw.get("experts")
    for where, node in (("", raw), *((name, raw.get(name)) for name in OPEN)):
        taught = experts if where == "teacher" and isinstance(experts, Mapping) else ()
        names = {*OPEN[where], *taught} if where else {*first_level}
        if where == "teacher":
            names |= {*offered_experts()}
        for name in node if isinstance(node, Mapping) else ():
            key = f"{where}.{name}" if where else str(name)
            if name not in names and not _refers(referred, key):
                raise unread(key, [*(f"{where}.{n}" if where else n for n in names), *_leaves(raw)])


def unread(key: str, keys: list[str]) -> ConfigError:
    """The error for a key that nothing reads, with the nearest key."""
    near = synonyms.advice(key, keys) or "".join(f"did you mean {n}? " for n in nearest(key, keys))
    return ConfigError(
        f"nothing reads {key}", where=key, cure=f"{near}leave it out; all keys: --cfg job"
    )


def references(node: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every dotted key that an interpolation in nested plain containers refers to, absolute."""
    if isinstance(node, Mapping | list | tuple):
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        for name, value in pairs:
            yield from references(value, (*path, str(name)))
    elif isinstance(node, str):
        for reference in _REFERENCE.findall(node):
            dots = len(reference) - len(reference.lstrip("."))
            base = path[: len(path) - dots] if dots else ()
            yield ".".join((*base, *re.split(r"[.\[\]]+", reference.strip(".[]"))))


def _refers(referred: set[str], key: str) -> bool:
    return any(r == key or r.startswith(f"{key}.") or key.startswith(f"{r}.") for r in referred)


def _leaves(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys below nested mappings, of the groups that a script has."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        if name != "hydra" and isinstance(value, Mapping):
            key = f"{prefix}.{name}" if prefix else str(name)
            yield from (f"{key}.{inner}" for inner in value)
            yield from _leaves(value, key)
