"""Shapes of latents, text and experts as plain data, compared before weights are loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from tinyflux_pl.core.errors import SpecMismatch


@dataclass(frozen=True)
class LatentSpec:
    """Latents of one image: channels, and image pixels per latent cell along a side."""

    channels: int
    downsample: int


@dataclass(frozen=True)
class TextSpec:
    """Text embeddings: token width D, largest length L, pooled width P.

    The last `ids` channels of a token are its position ids, for encoders of sequences.
    """

    width: int
    length: int
    pooled: int
    ids: int = 0


@dataclass(frozen=True)
class ExpertSpec:
    """Cached arrays of an expert: shapes per bucket, and the buckets in the student's time.

    The arrays named in `like_latents` have the shape of the sample's latents.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    t_buckets: tuple[float, ...]
    like_latents: tuple[str, ...] = ()

    def shapes_for(self, latents: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The shape per bucket of every array of a sample with latents of that shape."""
        return {**self.shapes, **dict.fromkeys(self.like_latents, latents)}

    def dtype_of(self, array: str, store_dtype: torch.dtype) -> torch.dtype:
        """The dtype that an array is cached in, in a store of `store_dtype`."""
        return store_dtype


def compare(expected: Any, actual: Any, seam: str, cure: str) -> None:
    """Raise SpecMismatch naming the first field in which two specs of one type differ."""
    for field in fields(expected):
        value = getattr(actual, field.name)
        expected_value = getattr(expected, field.name)
        if value != expected_value:
            raise SpecMismatch(
                f"{seam}: {field.name} is {value}, expected {expected_value}", where=seam, cure=cure
            )


def plain(spec: Any) -> dict[str, Any]:
    """A spec as JSON-ready data."""
    return asdict(spec)
