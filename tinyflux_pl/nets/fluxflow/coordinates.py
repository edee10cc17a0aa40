"""Positions of a picture's cells: as channels in [-1, 1], and as sinusoids of whole numbers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def with_coordinates(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
    """x with two more channels, the column and the row from -1 to 1, in its dtype."""
    batch, _, height, width = x.shape
    rows = torch.linspace(-1, 1, height, device=x.device).to(x.dtype)
    columns = torch.linspace(-1, 1, width, device=x.device).to(x.dtype)
    row_map = rows[:, None].expand(batch, 1, height, width)
    column_map = columns.expand(batch, 1, height, width)
    return torch.cat((x, column_map, row_map), 1)


def sinusoids_2d(
    height: int, width: int, dim: int, device: torch.device | str | None = None
) -> Float[Tensor, "n dim"]:
    """Sinusoids (H W, dim) of row, then column: sin even, cos odd, periods up to 10000."""
    half = dim // 2
    steps = torch.arange(0, half, 2, device=device, dtype=torch.float32)
    rates = torch.exp(-torch.log(torch.tensor(10000.0, device=device)) * steps / half)

    def axis(length: int) -> Tensor:
        angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rates
        return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)

    rows, columns = axis(height), axis(width)
    grid = (
        rows[:, None].expand(-1, width, -1),
        columns[None].expand(height, -1, -1),
    )
    return torch.cat(grid, -1).flatten(0, 1)
