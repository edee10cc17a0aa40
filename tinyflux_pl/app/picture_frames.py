"""The frames that a run fits pictures to, checked before anything is encoded."""

from __future__ import annotations

from typing import Any

from tinyflux_pl.config.data_schema import Buckets
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data.images.aspect_buckets import AspectBuckets

Sides = tuple[int, int]  # (height, width) in pixels


def require_fitting(
    image_size: Sides, buckets: Buckets | None, downsample: int, network: Any
) -> None:
    """Raise ConfigError unless image_size and all frames of data.buckets suit codec and network."""
    cell = downsample * network.patch_size
    require_cells(image_size, downsample, network.patch_size)
    network.require_size(*image_size)
    if buckets is None or not buckets.enabled:
        return
    if buckets.step % cell:
        what = f"frames in steps of {buckets.step} cannot be cut into cells of {cell} pixels"
        cure = f"a multiple of {cell}: data.buckets.step={-(-buckets.step // cell) * cell}"
        raise ConfigError(what, where="data.buckets.step", cure=cure)
    chosen = AspectBuckets.of(image_size, buckets.plain)
    for frame in chosen.frames() if chosen else ():
        network.require_size(*frame)


def require_cells(sides: Sides, downsample: int, patch_size: int = 1) -> None:
    """Raise ConfigError unless the images divide into cells of codec and patches."""
    cell = downsample * patch_size
    if any(side < cell or side % cell for side in sides):
        height, width = (max(1, round(side / cell)) * cell for side in sides)
        near = height if height == width else f"[{height},{width}]"
        raise ConfigError(
            f"images of {sides[0]} x {sides[1]} cannot be cut into cells of {cell} pixels "
            f"(codec {downsample} x patch {patch_size})",
            where="data.image_size",
            cure=f"use multiples of {cell}, such as data.image_size={near}",
        )


def size_of(sides: tuple[int, int] | None, codec: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) in pixels of data.image_size, else of the codec; ConfigError if neither."""
    if (size := sides or codec) is not None:
        return size
    cure = "give a side in pixels, or height and width: data.image_size=[48,64]"
    raise ConfigError("no image size", where="data.image_size", cure=cure)
