"""Logger endpoints may be set only by environment variables, never by a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from tinyflux_pl.core.errors import ConfigError

# A configuration of others would decide it, as by hydra.job.env_set.
ADDRESSED = ("settings", "tracking_uri", "artifact_location")
PLACED = ("name", "version", "sub_dir", "folder")  # joined to the run's folder
# a file's name, a folder, the program: what a logger would read by itself
UPLOADED = ("config", "dir", "save_code")


def check(nodes: Mapping[str, Any]) -> None:
    """Raise ConfigError for a logger option that sets an endpoint or leaves the run's folder."""
    for name, node in nodes.items():
        for key, value in node.items():
            where = f"logger.{name}.{key}"
            if key in ADDRESSED:
                what = "a configuration may not set where a logger sends this user's keys"
                cure = (
                    "set it in the shell, before the command: WANDB_BASE_URL, MLFLOW_TRACKING_URI"
                )
                raise ConfigError(what, where=where, cure=cure)
            if key in PLACED and isinstance(value, str) and not _stays(value):
                what = f"a logger may not write outside the run's folder: {value!r}"
                raise ConfigError(
                    what, where=where, cure="give a name, without / at its beginning or .."
                )
            if key in UPLOADED and value and not isinstance(value, Mapping):
                what = f"a logger may not read or send files of this machine: {key}={value!r}"
                raise ConfigError(
                    what,
                    where=where,
                    cure="leave it out: the run's configuration is logged by itself",
                )


def _stays(value: str) -> bool:
    path = PurePath(value)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in value
