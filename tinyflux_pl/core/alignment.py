"""Alignment of mapped weights, so that results do not depend on how files are divided."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

ALIGNMENT = 64  # bytes, as torch allocates


@torch.no_grad()
def align(network: nn.Module) -> None:
    """Copy weights that are mapped from a file at unaligned addresses, one after the other.

    A tensor of a safetensors file begins wherever the header ends; a product with a single row
    sums in another order there, and the picture's last bits would depend on how a release is cut
    into files.
    """
    for tensor in chain(network.parameters(), network.buffers()):
        is_plain = type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu"
        if is_plain and tensor.numel() and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()
