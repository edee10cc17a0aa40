"""Antialiased flat shapes from signed distances: one formula for drawing and for detection."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

DRAWING_VERSION = 1  # raise it whenever a picture or a caption would come out differently

# Far apart in hue or in lightness, and each far from the light grey background.
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "orange": (255, 135, 15),
    "yellow": (245, 215, 25),
    "green": (35, 150, 60),
    "cyan": (30, 190, 215),
    "blue": (35, 75, 215),
    "purple": (140, 50, 175),
    "black": (25, 25, 28),
}
COLOURS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "diamond", "cross")
COLOUR_JITTER = 6.0  # of 255, each channel
BACKGROUNDS = (222.0, 242.0)  # the range of the ground's grey

# Half-extents of each shape in radii, so that all five look equally large to the eye.
_SQUARE, _DIAMOND, _TRIANGLE, _CROSS_LENGTH, _CROSS_WIDTH = 0.90, 1.20, 1.32, 1.14, 0.37


def signed_distance(shape: str, x: Any, y: Any, radius: Any) -> Any:
    """Distance to the outline in pixels, negative inside.

    x right and y down from the shape's centre.

    Takes numpy arrays or tensors that broadcast. The centre is that of the bounding box.
    """
    xp: Any = torch if isinstance(x, Tensor) else np
    ax, ay = abs(x), abs(y)
    if shape == "circle":
        return xp.hypot(x, y) - radius
    if shape == "square":
        return xp.maximum(ax, ay) - _SQUARE * radius
    if shape == "diamond":
        return (ax + ay - _DIAMOND * radius) * 0.5**0.5
    if shape == "triangle":  # equilateral, tip up: circumradius R, inradius R / 2, box 1.5 R high
        circum = _TRIANGLE * radius
        below = y - 0.25 * circum  # measured from the centroid
        return xp.maximum(below, 0.75**0.5 * ax - 0.5 * below) - 0.5 * circum
    if shape == "cross":
        length, width = _CROSS_LENGTH * radius, _CROSS_WIDTH * radius
        return xp.minimum(xp.maximum(ax - length, ay - width), xp.maximum(ax - width, ay - length))
    raise ValueError(f"no such shape: {shape}")


def coverage(shape: str, x: Any, y: Any, radius: Any) -> Any:
    """Covered part of each pixel, in [0, 1], with a ramp one pixel wide along the outline."""
    return (0.5 - signed_distance(shape, x, y, radius)).clip(0.0, 1.0)


@lru_cache(maxsize=1)
def moments() -> tuple[tuple[float, float], ...]:
    """For each shape of radius 1: its area, and how far its centroid lies below the centre."""
    radius = 200.0
    y, x = np.mgrid[-300:301, -300:301].astype(np.float64)
    masks = [coverage(shape, x, y, radius) for shape in SHAPES]
    return tuple(
        (float(m.sum()) / radius**2, float((m * y).sum() / m.sum()) / radius) for m in masks
    )


@lru_cache(maxsize=8)
def pixel_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (1, size) and (size, 1) of pixel centres, from the top left corner."""
    line = np.arange(size, dtype=np.float32) + 0.5
    return line[None, :], line[:, None]


@dataclass(frozen=True)
class ShapeInstance:
    """One object to draw: shape, RGB in 0..255, centre and radius in pixels."""

    shape: str
    rgb: np.ndarray
    x: float
    y: float
    radius: float


def draw(objects: list[ShapeInstance], size: int, grey: float) -> tuple[np.ndarray, np.ndarray]:
    """Objects on a grey background -> image (size, size, 3) uint8 and mask (size, size).

    The mask is float32 in [0, 1].
    """
    across, down = pixel_grid(size)
    image = np.full((size, size, 3), grey, dtype=np.float32)
    mask = np.zeros((size, size), dtype=np.float32)
    for item in objects:
        cover = coverage(item.shape, across - item.x, down - item.y, item.radius)
        image += cover[..., None] * (item.rgb.astype(np.float32) - image)
        np.maximum(mask, cover, out=mask)
    return (image + 0.5).astype(np.uint8), mask


def jittered_colour(name: str, uniform: np.ndarray) -> np.ndarray:
    """The palette's colour moved by at most COLOUR_JITTER a channel.

    `uniform` is three numbers in [0, 1).
    """
    return np.clip(np.asarray(PALETTE[name]) + COLOUR_JITTER * (2.0 * uniform - 1.0), 0.0, 255.0)
