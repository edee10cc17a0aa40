"""W&B's limits on names, checked before the caches are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyflux_pl.core.errors import ConfigError

LONGEST = {"project": 128, "name": 128, "group": 128}  # characters
LONGEST_TAG = 64
REFUSED = "/\\#?%:"  # in a project's name


def check(nodes: Mapping[str, Any]) -> None:
    """Raise ConfigError for a project, name, group or tag that W&B refuses or truncates."""
    node = nodes.get("wandb") or {}
    for key, longest in LONGEST.items():
        value = node.get(key)
        if isinstance(value, str) and not 0 < len(value.strip()) <= longest:
            what = f"{key} has {len(value)} characters"
            cure = f"from 1 to {longest}: logger.wandb.{key}=NAME"
            raise ConfigError(what, where=f"logger.wandb.{key}", cure=cure)
    if refused := [sign for sign in REFUSED if sign in str(node.get("project", ""))]:
        what = f"the name of a W&B project may not have {' '.join(refused)}"
        cure = "logger.wandb.project=NAME; a team is logger.wandb.entity=TEAM"
        raise ConfigError(what, where="logger.wandb.project", cure=cure)
    tags = node.get("tags")
    for tag in tags if isinstance(tags, list) else ():
        if not isinstance(tag, str) or not 0 < len(tag.strip()) <= LONGEST_TAG:
            what = f"a tag is {str(tag)[:LONGEST_TAG]!r}, of {len(str(tag))} characters"
            cure = f"texts of 1 to {LONGEST_TAG} characters: logger.wandb.tags=[a,b]"
            raise ConfigError(what, where="logger.wandb.tags", cure=cure)
