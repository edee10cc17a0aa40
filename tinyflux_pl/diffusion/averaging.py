"""Exponential moving averages of weights: the arithmetic, without a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError

DECAYS = ("constant", "warmup", "power")


@torch.no_grad()
def lerp_(averages: Sequence[Tensor], values: Sequence[Tensor], decay: float, taken: Tensor | None = None) -> None:
    """averages <- decay * averages + (1 - decay) * values, in place, in fp32; nothing is read by the host.

    The averages must be fp32 (or fp64): in bf16 a step of 1e-4 rounds to nothing and they stall.
    Values may be of any floating dtype, on the averages' device. All averages stay as they are, to the bit,
    where `taken` (bool scalar) is False or any value is not finite.
    """
    for average in averages:
        if average.dtype not in (torch.float32, torch.float64):
            raise ConfigError(f"an average in {average.dtype}", where="EMA", cure="keep averages in fp32")
    pairs = list(zip(averages, values, strict=True))
    if not pairs:
        return
    moves = torch.stack(torch._foreach_norm(list(values), dtype=torch.float32)).isfinite().all()
    moves = moves if taken is None else moves & taken
    for average, value in pairs:
        torch.where(moves, torch.lerp(average, value.detach().to(average.dtype), 1.0 - decay), average, out=average)


def decay_at(step: int, decay: float, kind: str = "constant", power: float = 6.94) -> float:
    """The decay of update number `step`, counted from 0.

    constant: decay. warmup: min(decay, (1 + step) / (10 + step)). power: (1 - 1 / (step + 1))^(1 + power),
    whose width grows with training (Karras et al. 2023, 2312.02696; 6.94 is a width of 10 percent).
    """
    if kind not in DECAYS:
        raise ConfigError(f"unknown EMA decay {kind!r}", where="ema.kind", cure=f"one of {DECAYS}")
    if kind == "constant":
        return decay
    if kind == "warmup":
        return min(decay, (1 + step) / (10 + step))
    return (1 - 1 / (step + 1)) ** (1 + power)
