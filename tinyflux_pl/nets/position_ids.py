"""Position ids (stream, y, x) of image tokens, and their concatenation with those of text."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError


def grid_ids(height: int, width: int, device: torch.device | str = "cpu") -> Float[Tensor, "n 3"]:
    """Ids (0, y, x) of grid cells, row by row, in fp32: bf16 is inexact beyond 256."""
    y = torch.arange(height, device=device, dtype=torch.float32)[:, None].expand(height, width)
    x = torch.arange(width, device=device, dtype=torch.float32).expand(height, width)
    return torch.stack((torch.zeros_like(x), y, x), -1).flatten(0, 1)


def square_ids(tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "n 3"]:
    """Ids of a square grid; raises ConfigError if there is no such square."""
    side = math.isqrt(tokens.shape[1])
    if side * side != tokens.shape[1]:
        raise ConfigError(
            f"{tokens.shape[1]} image tokens do not form a square",
            where="img_ids",
            cure="pass img_ids",
        )
    return grid_ids(side, side, tokens.device)


def join_ids(txt_ids: Tensor, img_ids: Tensor) -> Tensor:
    """Text then image ids, batched if either is."""
    if txt_ids.dim() != img_ids.dim():
        batch = max(txt_ids, img_ids, key=Tensor.dim).shape[0]
        txt_ids, img_ids = (
            i if i.dim() == 3 else i.expand(batch, -1, -1) for i in (txt_ids, img_ids)
        )
    return torch.cat((txt_ids.float(), img_ids.float()), -2)
