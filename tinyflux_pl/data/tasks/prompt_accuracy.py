"""The share of pictures that satisfy their prompts: a metric that sums over batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.verifier import Verifier


class PromptAccuracy(Metric):
    """compute() -> {"all": share with every claim satisfied, and one share for each claim}.

    A claim's share is over the prompts that make it; a claim that no prompt made is left out. With
    `keep_prompts`, `rows` lists this process's prompts since the last reset, each with the claims
    that its picture satisfied. `alone`: this rank measures and the others do not, so compute() does
    not wait for them.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, verifier: Verifier, keep_prompts: bool = False, alone: bool = False) -> None:
        super().__init__(sync_on_compute=not alone)
        self.verifier = verifier
        self.keep_prompts = keep_prompts
        self.names = ("all", *verifier.claims)
        self.rows: list[tuple[str, dict[str, bool]]] = []
        self.num_correct: Tensor
        self.num_stated: Tensor
        for state in ("num_correct", "num_stated"):
            zeros = torch.zeros(len(self.names), dtype=torch.long)
            self.add_state(state, zeros, dist_reduce_fx="sum")

    def update(self, images: Tensor, prompts: Sequence[str]) -> None:
        """Add images (B, 3, H, W) in [-1, 1] and their prompts.

        DataError if their numbers differ.
        """
        if len(images) != len(prompts):
            what = f"{len(images)} images for {len(prompts)} prompts"
            raise DataError(what, where="PromptAccuracy", cure="give one prompt for each image")
        if not len(prompts):
            return
        checked = self.verifier.check(images, prompts)
        satisfied = torch.stack([checked[name] for name in self.names]).cpu()
        claimed = self.verifier.stated(prompts)
        stated = torch.ones_like(satisfied)
        for row, name in enumerate(self.verifier.claims, start=1):
            stated[row] = claimed[name].cpu()
        self.num_correct += (satisfied & stated).sum(1).to(self.num_correct.device)
        self.num_stated += stated.sum(1).to(self.num_stated.device)
        if self.keep_prompts:
            for prompt, column in zip(prompts, satisfied.T.tolist(), strict=True):
                self.rows.append((prompt, dict(zip(self.names, column, strict=True))))

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1]."""
        shares = self.num_correct / self.num_stated.clamp(min=1)
        stated = [i == 0 or bool(self.num_stated[i] > 0) for i in range(len(self.names))]
        return {name: shares[i] for i, name in enumerate(self.names) if stated[i]}

    def reset(self) -> None:
        """Forget every batch."""
        super().reset()
        self.rows = []
