"""Copies of networks on the meta device."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


def skeleton_of(network: N) -> N:
    """A frozen copy of a network on the meta device; its values are not copied."""
    memo: dict[int, torch.Tensor] = {}
    for parameter in network.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=False)
    for buffer in network.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(network, memo)
