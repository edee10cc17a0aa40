"""Repeats in an epoch, and sampling weight, of each folder's pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from tinyflux_pl.core.errors import ConfigError

MAX_REPEATS = 10_000
KEYS = ("repeats", "weight")
WHERE = "data.folders"


@dataclass(frozen=True)
class Rate:
    """`repeats`: times that a picture is drawn in an epoch; `weight`: a factor on how often."""

    repeats: int = 1
    weight: float = 1.0


@dataclass(frozen=True)
class DrawRates:
    """Folder relative to the dataset's -> rate; of nested folders the innermost counts."""

    folders: Mapping[str, Rate] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: Mapping[str, Any] | None) -> DrawRates:
        """From the node data.folders; ConfigError for a key or a value that it cannot have."""
        rates = {}
        for name, node in (keys or {}).items():
            where, cure = f"{WHERE}.{name}", f"write {WHERE}.{name}.repeats=2, or weight=0.5"
            if not isinstance(node, Mapping) or not node or not set(node) <= set(KEYS):
                raise ConfigError(f"{name} is {node!r}", where=where, cure=cure)
            repeats, weight = node.get("repeats", 1), node.get("weight", 1.0)
            if type(repeats) is not int or not 1 <= repeats <= MAX_REPEATS:
                cure = f"a whole number from 1 to {MAX_REPEATS:,}"
                raise ConfigError(f"repeats is {repeats!r}", where=f"{where}.repeats", cure=cure)
            if type(weight) not in (int, float) or not 0 < weight < math.inf:
                cure = "a number above 0; take the folder out to leave it out"
                raise ConfigError(f"weight is {weight!r}", where=f"{where}.weight", cure=cure)
            rates[PurePosixPath(str(name)).as_posix()] = Rate(repeats, float(weight))
        return cls(rates)

    def require_matches(self, paths: Sequence[str], where: str) -> None:
        """Raise ConfigError for a folder without pictures."""
        if not self.folders:
            return
        with_pictures = {
            parent.as_posix() for path in paths for parent in PurePosixPath(path).parents
        }
        for name in self.folders:
            if name not in with_pictures:
                there = ", ".join(sorted(with_pictures - {"."})[:10]) or "none"
                cure = f"folders with pictures: {there}"
                raise ConfigError(f"no picture in {name} of {where}", where=WHERE, cure=cure)

    def of_paths(self, paths: Sequence[str]) -> tuple[list[int], list[float]] | None:
        """Repeats and weight of each picture; None where all are 1."""
        rates = [self._rate(path) for path in paths]
        if all(rate == Rate() for rate in rates):
            return None
        return [rate.repeats for rate in rates], [rate.weight for rate in rates]

    def _rate(self, path: str) -> Rate:
        if not self.folders:
            return Rate()
        parents = (parent.as_posix() for parent in PurePosixPath(path).parents)
        return next((self.folders[p] for p in parents if p in self.folders), Rate())
