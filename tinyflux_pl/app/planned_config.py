"""A configuration to plan with: what lies nowhere on this machine is described by its structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyflux_pl.weights.hub import REPOSITORY

STRUCTURES = ("structure", "structures")  # keys that say what a file without a config.json holds
# Keys that name weights, with the key of their commit.
WEIGHTS = {"weights": "revision", "t5": "t5_revision", "clip": "clip_revision"}


def weightless(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with names of repositories that are not pinned taken out of codec and text.

    Only where a structure stands in for them: the rest is left to the error that names it.
    """
    return {**config, **{name: _outlined(config[name]) for name in ("codec", "text") if config.get(name)}}


def _outlined(node: dict[str, Any]) -> dict[str, Any]:
    if not any(node.get(key) for key in STRUCTURES):
        return node
    named = [key for key, revision in WEIGHTS.items() if _missing(node.get(key), node.get(revision))]
    return {**node, **dict.fromkeys(named)}


def _missing(weights: Any, revision: Any) -> bool:
    """Whether a repository is named without the commit that would fetch it; a path that is wrong stays an error."""
    if not isinstance(weights, str) or revision is not None or not REPOSITORY.fullmatch(weights):
        return False
    return not Path(weights).expanduser().exists()
