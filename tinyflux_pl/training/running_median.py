"""Medians of what was lately accepted, kept on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class RunningMedian:
    """The last `size` accepted values of each of `rows` quantities. Nothing here makes the host wait."""

    def __init__(self, rows: int, size: int = 64) -> None:
        self.values = torch.full((rows, size), torch.inf)
        self.accepted = torch.zeros((), dtype=torch.int64)

    def to(self, device: torch.device) -> None:
        """Move to where the values come from."""
        self.values, self.accepted = self.values.to(device), self.accepted.to(device)

    def limits(self, factors: Tensor, warmup: int) -> Tensor:
        """factors (rows,) times the medians (the lower of an even number); inf until `warmup` were accepted."""
        size = self.values.shape[1]
        middle = (self.accepted.clamp(1, size) - 1) // 2  # of what is there: empty places, inf, are sorted last
        medians = self.values.sort(dim=1).values.index_select(1, middle.reshape(1)).squeeze(1)
        limits = (medians * factors).nan_to_num(nan=torch.inf, posinf=torch.inf)  # 0 times a factor of inf
        return torch.where(self.accepted < warmup, torch.inf, limits)

    def push(self, values: Tensor, keep: Tensor) -> None:
        """Take up values (rows,) where `keep` (bool scalar), in place of the oldest."""
        size = self.values.shape[1]
        here = torch.arange(size, device=values.device) == self.accepted % size
        self.values = torch.where(here & keep, values.unsqueeze(1), self.values)
        self.accepted = self.accepted + keep

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"values": self.values.cpu(), "accepted": self.accepted.cpu()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        device = self.values.device
        self.values, self.accepted = state["values"].to(device), state["accepted"].to(device)
