"""Folders that must not lie in one another: two sources' caches, and what a run reads and what it writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import ConfigError


def check(sources: Mapping[str, Mapping[str, Any]], paths: Mapping[str, str]) -> None:
    """Raise ConfigError where a source's cache, or what runs write, lies in another source's cache or dataset."""
    caches: dict[str, Path] = {}
    for name, node in sources.items():
        mine = _place(node["cache"])
        for other, cache in caches.items():
            if mine.is_relative_to(cache) or cache.is_relative_to(mine):
                what = f"the caches of {other} and {name} lie in one another: {cache} and {mine}"
                cure = "give each source a folder of its own"
                raise ConfigError(what, where=f"data.sources.{name}.cache", cure=cure)
        caches[name] = mine
    for name, node in sources.items():
        root = node["train"].get("root")
        for place in (node["cache"], paths["cache"], paths["outputs"]) if isinstance(root, str) and root else ():
            if _place(place).is_relative_to(_place(root)):
                what = f"the dataset {_place(root)} holds what runs write: {place}"
                cure = "give the images a folder of their own, or write elsewhere: paths.root=/another/folder"
                raise ConfigError(what, where=f"data.sources.{name}.train.root", cure=cure)


def _place(path: str) -> Path:
    return Path(path).expanduser().resolve()
