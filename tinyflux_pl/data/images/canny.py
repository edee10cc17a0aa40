"""Edges of a picture (Canny 1986): blurred, thinned along the gradient, joined by hysteresis."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

CANNY_VERSION = 1  # part of the records' fingerprints: raise it when edges change
SIGMA, RADIUS = 1.0, 4  # of the blur, in pixels
LOW, HIGH = 0.05, 0.15  # of the gradient, as a share of a step from black to white
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def canny_map(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """White lines of one pixel on black, a function of the pixels alone."""
    return np.repeat(edges(pixels)[..., None], 3, axis=2).astype(np.uint8) * 255


def edges(pixels: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """True on an edge."""
    grey = (pixels.astype(np.float64) @ np.array(LUMA)) / 255
    offsets = np.arange(-RADIUS, RADIUS + 1)
    kernel = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    smooth = _along(_along(grey, kernel / kernel.sum(), 0), kernel / kernel.sum(), 1)
    slope, average = np.array([-0.5, 0.0, 0.5]), np.array([0.25, 0.5, 0.25])  # Sobel, normalised
    down = _along(_along(smooth, slope, 0), average, 1)
    across = _along(_along(smooth, slope, 1), average, 0)
    strength = 2 * np.hypot(down, across)  # an unblurred step has a slope of a half
    thin = strength * _is_ridge(strength, down, across)
    return _connected(thin >= LOW, thin >= HIGH)


def _along(
    values: Float[np.ndarray, "h w"], kernel: Float[np.ndarray, " k"], axis: int
) -> Float[np.ndarray, "h w"]:
    """Correlate with a kernel along one axis; edge values are repeated."""
    radius = len(kernel) // 2
    pad = [(radius, radius) if k == axis else (0, 0) for k in range(2)]
    padded = np.pad(values, pad, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=axis)
    return windows @ kernel


def _is_ridge(
    strength: Float[np.ndarray, "h w"],
    down: Float[np.ndarray, "h w"],
    across: Float[np.ndarray, "h w"],
) -> Bool[np.ndarray, "h w"]:
    """True where neither neighbour along the gradient (to eighths of a turn) is stronger."""
    height, width = strength.shape
    padded = np.pad(strength, 1)
    eighth = np.round(np.arctan2(down, across) / (np.pi / 4)).astype(int) % 4
    steps = ((0, 1), (1, 1), (1, 0), (1, -1))  # row, column for each direction
    ridge = np.zeros(strength.shape, bool)
    for direction, (row, column) in enumerate(steps):
        ahead = padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]
        behind = padded[1 - row : 1 - row + height, 1 - column : 1 - column + width]
        # of two equal neighbours one is kept
        ridge |= (eighth == direction) & (strength > ahead) & (strength >= behind)
    return ridge


def _connected(
    weak: Bool[np.ndarray, "h w"], strong: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """The weak pixels that a chain of weak neighbours joins to a strong one."""
    left = np.pad(weak, 1)
    columns = left.shape[1]
    around = np.array([r * columns + c for r in (-1, 0, 1) for c in (-1, 0, 1)])
    left = left.ravel()
    joined = np.zeros_like(left)
    front = np.flatnonzero(np.pad(strong, 1))
    while front.size:
        left[front] = False
        joined[front] = True
        neighbours = np.unique(front[:, None] + around)
        front = neighbours[left[neighbours]]
    return joined.reshape(-1, columns)[1:-1, 1:-1]
