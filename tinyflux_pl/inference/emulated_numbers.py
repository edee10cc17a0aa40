"""A note on weights in a number format that the processor only emulates."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from tinyflux_pl.core.precision import has_fast_bf16

HALVES = (torch.bfloat16, torch.float16)


def notes(denoiser: Any, device_type: str) -> list[str]:
    """A line if most of the denoiser's weights are in half precision on such a CPU; else none.

    Products of 1,024 x 1,024 took 5 to 6 times as long as in fp32 on a CPU with AVX2 alone.
    """
    if device_type != "cpu" or has_fast_bf16(device_type):
        return []
    sizes: Counter[torch.dtype] = Counter()
    for weight in denoiser.parameters():
        sizes[weight.dtype] += weight.numel()
    dtype = sizes.most_common(1)[0][0]
    if dtype not in HALVES:
        return []
    name = str(dtype).removeprefix("torch.")
    return [
        f"this processor emulates {name}, about 5 times slower than float32: model.dtype=float32 "
        "draws faster, with twice the bytes of weights"
    ]
