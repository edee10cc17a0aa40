"""The share of pictures that keep what their prompts say, as a metric that sums over batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.protocols import Verifier


class PromptAccuracy(Metric):
    """compute() -> {"all": share with every claim kept, and one share for each claim}.

    A claim's share is over the prompts that make it, if the verifier can tell (its `stated`), else over all; a
    claim that no prompt made is left out. With `keep_prompts`, `rows` lists this process's prompts since the
    last reset, each with what its picture kept. `alone`: this rank measures and the others do not, so that
    compute() does not wait for them.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, verifier: Verifier, keep_prompts: bool = False, alone: bool = False) -> None:
        super().__init__(sync_on_compute=not alone)
        self.verifier, self.keep_prompts = verifier, keep_prompts
        self.names = ("all", *verifier.claims)
        self.rows: list[tuple[str, dict[str, bool]]] = []
        self.kept: Tensor
        self.made: Tensor
        for state in ("kept", "made"):
            self.add_state(state, torch.zeros(len(self.names), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, images: Tensor, prompts: Sequence[str]) -> None:
        """Images (B, 3, H, W) in [-1, 1] and the prompts they were drawn for; DataError if their numbers differ."""
        if len(images) != len(prompts):
            cure = "give one prompt an image"
            raise DataError(f"{len(images)} images for {len(prompts)} prompts", where="PromptAccuracy", cure=cure)
        if not len(prompts):
            return
        found = self.verifier.check(images, prompts)
        kept = torch.stack([found[name] for name in self.names]).cpu()
        made = torch.ones_like(kept)
        if hasattr(self.verifier, "stated"):
            stated = self.verifier.stated(prompts)
            made[1:] = torch.stack([stated[name] for name in self.verifier.claims]).cpu()
        self.kept += (kept & made).sum(1).to(self.kept.device)
        self.made += made.sum(1).to(self.made.device)
        if self.keep_prompts:
            columns = kept.T.tolist()
            self.rows += [(p, dict(zip(self.names, row, strict=True))) for p, row in zip(prompts, columns, strict=True)]

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1]."""
        shares = self.kept / self.made.clamp(min=1)
        return {name: shares[i] for i, name in enumerate(self.names) if i == 0 or self.made[i] > 0}

    def reset(self) -> None:
        """Forget every batch."""
        super().reset()
        self.rows = []
