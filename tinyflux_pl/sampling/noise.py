"""Initial noise, and the noise that an ancestral solver adds, by image and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tinyflux_pl.core import rng
from tinyflux_pl.core.transfer import to_device


def initial_noise(
    shape: tuple[int, int, int], real: Tensor | None, seed: int, stream: str, ids: Sequence[int]
) -> Tensor:
    """Noise of each image; of a sequence, real tokens (B, N) alone draw noise, and padding is 0."""
    if real is None:
        return rng.normal(shape, seed, stream, ids)
    x = torch.zeros(len(ids), *shape)
    for row, i in enumerate(ids):
        cells = real[row].cpu().view(shape[1:])
        x[row, :, cells] = rng.normal((shape[0], int(cells.sum())), seed, stream, [i])[0]
    return x


def ancestral_noise(
    shape: tuple[int, int, int], seed: int, stream: str, ids: Sequence[int], device: torch.device
) -> Callable[[int], Tensor]:
    """Noise that an ancestral solver adds after a step, by its index; independent of the batch."""
    stream = f"{stream}/ancestral"
    return lambda index: to_device(rng.normal(shape, seed, stream, ids, step=index), device)
