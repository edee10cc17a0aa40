"""Folders that must not be nested: caches, and the inputs and outputs of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import ConfigError


def check(sources: Mapping[str, Mapping[str, Any]], paths: Mapping[str, str]) -> None:
    """Raise ConfigError if a cache or output folder lies inside another cache or a dataset."""
    caches: dict[str, Path] = {}
    for name, node in sources.items():
        new_cache = _absolute(node["cache"])
        for other, cache in caches.items():
            if new_cache.is_relative_to(cache) or cache.is_relative_to(new_cache):
                both = f"{cache} and {new_cache}"
                what = f"the caches of {other} and {name} are nested: {both}"
                cure = "give each source its own folder"
                raise ConfigError(what, where=f"data.sources.{name}.cache", cure=cure)
        caches[name] = new_cache
    for name, node in sources.items():
        root = node["train"].get("root")
        if not isinstance(root, str) or not root:
            continue
        for written in (node["cache"], paths["cache"], paths["outputs"]):
            if _absolute(written).is_relative_to(_absolute(root)):
                what = f"the dataset {_absolute(root)} holds what runs write: {written}"
                cure = (
                    "give the images a folder of their own, or write elsewhere: "
                    "paths.root=/another/folder"
                )
                raise ConfigError(what, where=f"data.sources.{name}.train.root", cure=cure)


def _absolute(path: str) -> Path:
    return Path(path).expanduser().resolve()
