"""The share of pictures that keep what their prompts say, as a metric."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from tinyflux_pl.core.protocols import Verifier


class PromptAccuracy(Metric):
    """compute() -> {"all": share with every claim kept, and one share for each claim}."""

    full_state_update = False

    def __init__(self, verifier: Verifier) -> None:
        super().__init__()
        self.verifier = verifier
        self.names = ("all", *verifier.claims)
        for name in ("total", *(f"kept_{n}" for n in self.names)):
            self.add_state(name, torch.tensor(0, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, images: Tensor, prompts: Sequence[str]) -> None:
        """Images (B, 3, H, W) in [-1, 1] and the prompts they were drawn for."""
        found = self.verifier.check(images, prompts)
        self.total += len(prompts)
        for name in self.names:
            setattr(self, f"kept_{name}", getattr(self, f"kept_{name}") + found[name].sum().cpu())

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1]."""
        return {name: getattr(self, f"kept_{name}") / self.total.clamp(min=1) for name in self.names}
