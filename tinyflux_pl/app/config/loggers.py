"""Whom a run's loggers send the user's keys to is for the user alone to say, in the shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyflux_pl.core.errors import ConfigError

# A configuration of others would decide it, as by hydra.job.env_set.
ADDRESSED = ("settings", "tracking_uri")


def check(nodes: Mapping[str, Any]) -> None:
    """Raise ConfigError for a logger's option that says where it connects to."""
    for name, node in nodes.items():
        for key in ADDRESSED:
            if key in node:
                what = "a configuration may not say whom a logger sends this user's keys to"
                cure = "say it in the shell, before the command: WANDB_BASE_URL, MLFLOW_TRACKING_URI"
                raise ConfigError(what, where=f"logger.{name}.{key}", cure=cure)
