"""Asynchronous tensor copies from the host to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def pinned(tensor: Tensor) -> Tensor:
    """The tensor in page-locked memory, for asynchronous copies to a GPU."""
    # rows that share their memory cannot be pinned as they are
    return tensor.contiguous().pin_memory()


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on the device; a copy to a GPU does not make the host wait.

    A copy to the CPU waits: an unfinished one could be read.
    """
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return (pinned(tensor) if tensor.device.type == "cpu" else tensor).to(device, non_blocking=True)
