"""The folder that Hydra makes for every job: gone again where nothing was to be left in it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

Recipe = Callable[[dict[str, Any]], int]


def leaving_no_trace(recipe: Recipe) -> Recipe:
    """The recipe; afterwards, or after an error, the run's folder goes if nothing was put into it."""

    @functools.wraps(recipe)
    def wrapped(config: dict[str, Any]) -> int:
        try:
            return recipe(config)
        finally:
            from tinyflux_pl.app import ranks

            if ranks.first():
                _remove_empty(Path(config["run_dir"]), Path(config["paths"]["root"]))

    return wrapped


def _remove_empty(run_dir: Path, root: Path) -> None:
    """The folder with its empty log, and empty folders above it, up to `root`, which stays."""
    for log in run_dir.glob("*.log"):
        if not log.stat().st_size:
            log.unlink()
    for folder in (run_dir, *run_dir.parents):
        below = folder.is_relative_to(root) and folder != root
        if not below or (folder.is_dir() and any(folder.iterdir())):
            return
        if folder.is_dir():
            folder.rmdir()
