"""The teachers of a run by name: from its configuration, or one of the user's runs."""

from __future__ import annotations

from typing import Any

from tinyflux_pl.config.build import build
from tinyflux_pl.config.schema import DataJob
from tinyflux_pl.core.errors import ConfigError


def load(config: DataJob, name: str) -> Any:
    """The teacher of an expert; teacher.checkpoint is that of an expert without features.

    ConfigError if it has none.
    """
    node, checkpoint = config.teacher.node(name), config.teacher.checkpoint
    if node:
        return build(node, f"teacher.{name}")
    has_features = bool(config.experts.get(name))
    if checkpoint is not None and not has_features:
        from tinyflux_pl.inference.checkpoint_teacher import from_checkpoint

        return from_checkpoint(name, checkpoint)
    raise ConfigError(
        f"the expert {name!r} has no teacher",
        where=f"teacher.{name}",
        cure="teacher=NAME"
        if has_features
        else "teacher=checkpoint teacher.checkpoint=outputs/RUN",
    )
