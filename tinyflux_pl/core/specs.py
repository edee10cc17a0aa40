"""What meets at the seams, as plain data that can be compared before weights are loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from tinyflux_pl.core.errors import SpecMismatch


@dataclass(frozen=True)
class LatentSpec:
    """Latents of one image: channels, and image pixels per latent cell along a side."""

    channels: int
    downsample: int


@dataclass(frozen=True)
class TextSpec:
    """Text embeddings: token width D, largest length L, pooled width P.

    The last `ids` channels of a token are its position, where the encoder knows positions (sequences).
    """

    width: int
    length: int
    pooled: int
    ids: int = 0


@dataclass(frozen=True)
class ExpertSpec:
    """What an expert caches: its arrays' shapes per bucket, and the buckets (the student's t)."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    t_buckets: tuple[float, ...]


def compare(expected: Any, found: Any, seam: str, cure: str) -> None:
    """Raise SpecMismatch naming the first field in which two specs of one type differ."""
    for field in fields(expected):
        left, right = getattr(expected, field.name), getattr(found, field.name)
        if left != right:
            raise SpecMismatch(f"{seam}: {field.name} is {right}, expected {left}", where=seam, cure=cure)


def plain(spec: Any) -> dict[str, Any]:
    """A spec as JSON-ready data."""
    return asdict(spec)
