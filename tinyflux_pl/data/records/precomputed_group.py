"""A group of columns that a dataset has precomputed: copied into a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PrecomputedGroup:
    """`shapes`: column of a store -> shape of a row. Of an expert: its buckets' times and clock."""

    shapes: Mapping[str, tuple[int, ...]]
    t_buckets: tuple[float, ...] = ()
    clock: str = ""
