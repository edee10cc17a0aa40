"""Interpolation of cached features between the times of their buckets."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tinyflux_pl.core.transfer import to_device

T_BUCKETS = tuple(round(0.05 + 0.1 * k, 2) for k in range(10))


def interpolate(
    buckets: Tensor, t: Tensor, t_buckets: Sequence[float] | Tensor = T_BUCKETS
) -> Tensor:
    """(B, K, ...) and t (B,) -> (B, ...) in fp32: linear between knots, constant beyond the ends.

    t_buckets (K,) are increasing, evenly spaced or not. Nothing is read from the device.
    """
    knots = to_device(torch.as_tensor(t_buckets, dtype=torch.float32), t.device)
    time = t.float().clamp(min=knots[0], max=knots[-1])
    right = torch.searchsorted(knots, time.contiguous()).clamp(1, len(knots) - 1)
    weight = (time - knots[right - 1]) / (knots[right] - knots[right - 1])
    rows = torch.arange(len(t), device=t.device)
    low = buckets[rows, right - 1].float()
    high = buckets[rows, right].float()
    weight = weight.view(-1, *(1,) * (low.ndim - 1))
    return (1 - weight) * low + weight * high
