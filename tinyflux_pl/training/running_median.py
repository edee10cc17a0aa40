"""Running medians on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class RunningMedian:
    """Median of the last `size` accepted values of `rows` quantities. The host never waits."""

    def __init__(self, rows: int, size: int = 64) -> None:
        self.values = torch.full((rows, size), torch.inf)
        self.accepted = torch.zeros((), dtype=torch.int64)

    def to(self, device: torch.device) -> None:
        """Move to the device of the values."""
        self.values, self.accepted = self.values.to(device), self.accepted.to(device)

    def limits(self, factors: Tensor, warmup: int) -> Tensor:
        """Factors (rows,) times the lower medians; inf before `warmup` values."""
        size = self.values.shape[1]
        # The middle of the values so far: empty slots are inf and sort last.
        middle = (self.accepted.clamp(1, size) - 1) // 2
        medians = self.values.sort(dim=1).values.index_select(1, middle.reshape(1)).squeeze(1)
        # nan: a median of 0 times a factor of inf
        limits = (medians * factors).nan_to_num(nan=torch.inf, posinf=torch.inf)
        return torch.where(self.accepted < warmup, torch.inf, limits)

    def push(self, values: Tensor, accept: Tensor) -> None:
        """Replace the oldest values by `values` (rows,) if `accept` (bool scalar)."""
        size = self.values.shape[1]
        oldest = torch.arange(size, device=values.device) == self.accepted % size
        self.values = torch.where(oldest & accept, values.unsqueeze(1), self.values)
        self.accepted = self.accepted + accept

    def state(self) -> dict[str, Any]:
        """Values and count on the host, for a checkpoint."""
        return {"values": self.values.cpu(), "accepted": self.accepted.cpu()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        device = self.values.device
        self.values, self.accepted = state["values"].to(device), state["accepted"].to(device)
