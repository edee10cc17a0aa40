"""Nodes that become objects: each names its class, or comes from the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyflux_pl.config.offered_experts import offered_experts
from tinyflux_pl.core.errors import ConfigError

ONE = (
    "codec",
    "text",
    "path",
    "timesteps",
    "objective",
    "optimizer",
    "schedule",
    "model",
    "method",
)
NAMED = ("experts", "logger", "technique")  # several, by name
# which generate.py may leave empty
OF_A_CHECKPOINT = ("codec", "text", "path", "timesteps", "model")


def check(config: Mapping[str, Any], task: str) -> None:
    """Raise ConfigError for a node that is no mapping, or names no class where one is needed."""
    for group in (name for name in ONE if name in config):
        node = config[group]
        if node == {} and group in OF_A_CHECKPOINT:
            if group == "path" and config.get("release"):
                continue  # as the release's own scheduler says
            if task != "generate":
                cure = (
                    f"name a {group}; as_trained is generate.py's (of a checkpoint), release a "
                    "release's"
                )
                raise ConfigError(f"no {group} is chosen", where=group, cure=cure)
        else:
            _require_class(node, group)
    for group in (name for name in NAMED if name in config):
        named = config[group]
        if not isinstance(named, Mapping):
            raise ConfigError(
                f"{group} is {named!r}", where=group, cure=f"choose one: {group}=NAME"
            )
        for name, node in named.items():
            if node == {} and group == "experts":
                continue  # a teacher without ports, whose velocities alone are used
            _require_class(node, f"{group}.{name}")
    teachers = config.get("teacher")
    for name in {*offered_experts(), *config.get("experts", ())}:
        if isinstance(teachers, Mapping) and teachers.get(name) is not None:
            _require_class(teachers[name], f"teacher.{name}")


def _require_class(node: Any, key: str) -> None:
    if not isinstance(node, Mapping) or "_target_" not in node:
        cure = f"choose one: {key.partition('.')[0]}=NAME (--help lists them), or leave {key} out"
        raise ConfigError(f"{key} is {node!r}, which names no class", where=key, cure=cure)
