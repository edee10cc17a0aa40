"""Small whole runs through the real configuration, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONF = Path(__file__).resolve().parents[2] / "conf"


def configuration(task: str, root: Path, *overrides: str) -> dict[str, Any]:
    """The resolved configuration of a task with everything written below `root`."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    small = [] if task == "generate" else ["debug=fast", "data.sources.shapes.train.count=48"]
    small += [] if task == "generate" else ["data.sources.shapes.validation.count=8", "data.shard_size=32"]
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(task, overrides=[*small, f"paths.root={root}", *overrides])
    return OmegaConf.to_container(config, resolve=True)


def run(task: str, root: Path, *overrides: str) -> dict[str, Any]:
    """Run a task; returns its configuration."""
    from tinyflux_pl.app import run as recipes

    config = configuration(task, root, *overrides)
    getattr(recipes, task)(config)
    return config
