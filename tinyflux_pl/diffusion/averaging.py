"""Exponential moving averages of weights: the arithmetic, without a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError

DECAYS = ("constant", "warmup", "power")
CHUNK_BYTES = 2**26  # averages updated per kernel launch on a GPU; on a CPU one tensor at a time


@torch.no_grad()
def lerp_(
    averages: Sequence[Tensor], values: Sequence[Tensor], decay: float, taken: Tensor | None = None
) -> None:
    """averages <- decay * averages + (1 - decay) * values, in place, in fp32.

    Nothing is read by the host.

    The averages must be fp32 (or fp64): in bf16 a step of 1e-4 rounds to nothing and they stall.
    Values may be of any floating dtype, on the averages' device. All averages stay as they are, to
    the bit, where `taken` (bool scalar) is False or any value is not finite.
    """
    for average in averages:
        if average.dtype not in (torch.float32, torch.float64):
            raise ConfigError(
                f"an average in {average.dtype}", where="EMA", cure="keep averages in fp32"
            )
    pairs = list(zip(averages, values, strict=True))
    if not pairs:
        return
    moves = torch.stack(torch._foreach_norm(list(values), dtype=torch.float32)).isfinite().all()
    moves = moves if taken is None else moves & taken
    for chunk in _chunks(pairs):
        old, new = zip(*chunk, strict=True)
        before = _flatten(old)
        after = torch.lerp(before, _flatten(new).to(before.dtype), 1.0 - decay)
        if len(chunk) == 1:
            torch.where(moves, after, before, out=before)
        else:
            after = torch.where(moves, after, before)
            torch._foreach_copy_(list(old), torch._utils._unflatten_dense_tensors(after, old))


def _chunks(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[list[tuple[Tensor, Tensor]]]:
    """Averages and values in chunks of one dtype and of `CHUNK_BYTES`, or of one tensor."""
    chunks: list[list[tuple[Tensor, Tensor]]] = []
    free_bytes, kind = 0, None
    for average, value in pairs:
        if average.nbytes >= free_bytes or (average.dtype, value.dtype) != kind:
            chunks.append([])
            free_bytes, kind = (
                0 if average.device.type == "cpu" else CHUNK_BYTES,
                (average.dtype, value.dtype),
            )
        chunks[-1].append((average, value))
        free_bytes -= average.nbytes
    return chunks


def _flatten(tensors: Sequence[Tensor]) -> Tensor:
    """One vector: a view of a single tensor, a copy of several."""
    return (
        tensors[0].detach()
        if len(tensors) == 1
        else torch.cat([tensor.detach().flatten() for tensor in tensors])
    )


def decay_at(step: int, decay: float, kind: str = "constant", power: float = 6.94) -> float:
    """The decay of update number `step`, counted from 0.

    constant: decay. warmup: min(decay, (1 + step) / (10 + step)). power: (1 - 1 / (step + 1))^(1 +
    power), whose width grows with training (Karras et al. 2023, 2312.02696; 6.94 is a width of 10
    percent).
    """
    if kind not in DECAYS:
        raise ConfigError(
            f"unknown EMA decay {kind!r}", where="ema.kind", cure=f"choose {', '.join(DECAYS)}"
        )
    if kind == "constant":
        return decay
    if kind == "warmup":
        return min(decay, (1 + step) / (10 + step))
    return (1 - 1 / (step + 1)) ** (1 + power)
