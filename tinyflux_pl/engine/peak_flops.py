"""The peak rate of NVIDIA GPUs, and the FLOPs of a training step counted on the meta device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

# Dense TFLOP/s of matrix products in bf16 or fp16 with fp32 accumulation, from NVIDIA's data sheets
# (which state twice as much where they count structured sparsity). The first name that the
# device's name contains counts, so the longer ones stand first.
DENSE_TFLOPS = {
    "GH200": 989.4,
    "H200 NVL": 835.5,
    "H200": 989.4,
    "H100 NVL": 835.5,
    "H100 PCIe": 756.5,
    "H100": 989.4,
    "H800": 989.4,
    "A100": 312.0,
    "A800": 312.0,
    "A10G": 70.0,
    "A10": 125.0,
    "A30": 165.0,
    "A40": 149.7,
    "RTX A6000": 154.8,
    "L40S": 362.1,
    "L40": 181.1,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
HALF = ("bf16-mixed", "bf16-true", "16-mixed", "16-true")


def peak_flops(device_name: str, precision: str) -> float | None:
    """FLOP/s of a GPU by its CUDA name; None if it or the precision is not in the table."""
    words = f" {device_name} ".replace("-", " ")
    if precision not in HALF or " MIG " in words:  # a part of a GPU
        return None
    for name, tflops in DENSE_TFLOPS.items():
        # a desktop card's name ends there: the laptop's is another chip
        ending = name.startswith("RTX ")
        if words.endswith(f" {name} ") if ending else f" {name} " in words:
            return tflops * 1e12
    return None


def device_peak_flops(device: torch.device | str, precision: str) -> float | None:
    """The peak of a device of this machine; None for anything but a GPU in the table."""
    if torch.device(device).type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name(device), precision)


def count_flops(loss: Callable[[], Tensor]) -> int:
    """FLOPs of matrix products, convolutions and attention in `loss()` and its backward pass."""
    counter = FlopCounterMode(display=False)
    with counter:
        loss().backward()
    return counter.get_total_flops()
