"""Randomness as a function of (seed, stream, sample_id, step), never of history.

Batch size, workers, ranks and resumption therefore change nothing. Streams in use: order, t, noise,
text_dropout, expert_dropout/NAME, dropout, extraction, sampling, validation, init; each rule that
draws data has its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def derive(seed: int, stream: str, sample_id: int = 0, step: int = 0) -> int:
    """A 63-bit seed from the four coordinates (blake2b of their decimal form)."""
    key = f"{seed}/{stream}/{sample_id}/{step}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def generator(seed: int, stream: str, sample_id: int = 0, step: int = 0) -> torch.Generator:
    """A CPU generator seeded by the four coordinates."""
    return torch.Generator().manual_seed(derive(seed, stream, sample_id, step))


def normal(
    shape: Sequence[int],
    seed: int,
    stream: str,
    sample_ids: Sequence[int],
    step: int = 0,
    pinned: bool = False,
) -> Float[Tensor, "b ..."]:
    """Standard normal noise (B, *shape) in fp32, one generator per sample.

    `pinned` in page-locked memory for a GPU.
    """
    noise = torch.empty(len(sample_ids), *shape, pin_memory=pinned)
    for row, i in zip(noise, sample_ids, strict=True):
        row.normal_(generator=generator(seed, stream, i, step))
    return noise


def uniform(
    seed: int, stream: str, sample_ids: Sequence[int], step: int = 0
) -> Float[Tensor, " b"]:
    """Uniform numbers in (0, 1), one per sample, exact in fp32's 24 bits."""
    bits = [derive(seed, stream, i, step) >> 39 for i in sample_ids]
    return (torch.tensor(bits, dtype=torch.float64).add(0.5) / 2**24).float()
