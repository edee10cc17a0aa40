"""Apply a function of pictures to overlapping tiles, blended without visible seams.

A sixth of a tile's side is shared with its neighbour, and the two are blended linearly there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError

OVERLAP = 6  # of a tile's side, one part overlaps its neighbour
MULTIPLE = 64  # pixels, so that a tile has whole cells of each autoencoder
PIXELS = 2**18  # in one pass of an autoencoder, whose activations take a few KB a pixel


@dataclass(frozen=True)
class Window:
    """Rows or columns of one tile, from `start` to `stop`."""

    start: int
    stop: int


def windows(length: int, tile: int, cell: int = 1) -> list[Window]:
    """The fewest windows of at most `tile` cells that cover `length`, equal and evenly spread.

    Each shares about a sixth of its side with its neighbour; edges are multiples of `cell`.
    """
    if length <= tile:
        return [Window(0, length)]
    step = (tile - tile // OVERLAP) // cell * cell
    count = math.ceil((length - (tile - step)) / step)
    side = math.ceil(length / (count - (count - 1) / OVERLAP) / cell) * cell
    starts = [(length - side) * i // (count - 1) // cell * cell for i in range(count)]
    return [Window(start, start + side) for start in starts]


def ramp(window: Window, before: int, after: int, like: Tensor) -> Tensor:
    """Weights of a window: rising over the cells shared with the one before, falling after."""
    weights = torch.ones(window.stop - window.start, dtype=like.dtype, device=like.device)
    for count, rows in ((before, slice(0, before)), (after, slice(len(weights) - after, None))):
        if count:
            rise = (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count
            weights[rows] *= rise if rows.start == 0 else rise.flip(0)
    return weights


def tiled(run: Callable[[Tensor], Tensor], x: Tensor, tile: int, cell: int, scale: float) -> Tensor:
    """`run` over (B, C, H, W) in tiles of `tile` x `tile` cells of the input, blended.

    `cell` input cells are the smallest unit of a tile's edge; `scale` is the output's side over the
    input's.
    """
    height, width = x.shape[-2:]
    rows, columns = windows(height, tile, cell), windows(width, tile, cell)
    total: Tensor | None = None
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            part = run(x[..., row.start : row.stop, column.start : column.stop])
            if total is None:
                sides = (round(height * scale), round(width * scale))
                total = part.new_zeros(*part.shape[:2], *sides)
            weights = _weights(rows, i, scale, part)[:, None] * _weights(columns, j, scale, part)
            bounds = [round(side * scale) for side in (row.start, row.stop)]
            spans = [round(side * scale) for side in (column.start, column.stop)]
            total[..., bounds[0] : bounds[1], spans[0] : spans[1]] += part * weights
    assert total is not None
    return total


def _weights(windows_of_axis: list[Window], i: int, scale: float, like: Tensor) -> Tensor:
    """The ramp of a window in output cells, normalised where more than two overlap."""
    ends = [Window(round(w.start * scale), round(w.stop * scale)) for w in windows_of_axis]
    total = torch.zeros(ends[-1].stop, dtype=like.dtype, device=like.device)
    ramps = []
    for k, window in enumerate(ends):
        before = max(ends[k - 1].stop - window.start, 0) if k else 0
        after = max(window.stop - ends[k + 1].start, 0) if k + 1 < len(ends) else 0
        weights = ramp(window, before, after, like)
        total[window.start : window.stop] += weights
        ramps.append(weights)
    return ramps[i] / total[ends[i].start : ends[i].stop]


def in_batches(run: Callable[[Tensor], Tensor], x: Tensor, pixels: int) -> Tensor:
    """Apply `run` to a batch in parts of at most PIXELS pixels; an image has `pixels`."""
    size = max(1, PIXELS // pixels)
    return torch.cat([run(x[i : i + size]) for i in range(0, len(x), size)])


def require_tile(tile: int | None) -> None:
    """Raise ConfigError for a tile size in pixels that is not a multiple of a cell."""
    if tile is not None and (tile % MULTIPLE or tile < 2 * MULTIPLE):
        cure = f"a multiple of {MULTIPLE}, at least {2 * MULTIPLE}; null: no tiles"
        raise ConfigError(f"tile is {tile}", where="codec.tile", cure=cure)
