"""Tensors on their way from the host to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def pinned(tensor: Tensor) -> Tensor:
    """The tensor in memory that a GPU copies from by itself."""
    return tensor.contiguous().pin_memory()  # rows that share their memory cannot be pinned as they are


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on the device; towards a GPU the host does not wait for what the GPU still has to do.

    Towards the CPU it waits: there a copy that is still under way could be read.
    """
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return (pinned(tensor) if tensor.device.type == "cpu" else tensor).to(device, non_blocking=True)
