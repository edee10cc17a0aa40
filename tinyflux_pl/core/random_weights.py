"""Random nonzero weights for trials, a function of seed and stream."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn

from tinyflux_pl.core import rng

DEVIATION = 0.02  # of what a network initialises with zeros, which would hide all before it


@contextmanager
def drawn_from(seed: int, stream: str) -> Generator[None]:
    """Inside, torch draws its initial values from (seed, stream); its global state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive(seed, stream))
        yield


@torch.no_grad()
def fill_zeros(network: nn.Module, seed: int, stream: str) -> None:
    """Draw the parameters that are zero everywhere, biases among them."""
    generator = rng.generator(seed, stream)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.copy_(DEVIATION * torch.randn(parameter.shape, generator=generator))
