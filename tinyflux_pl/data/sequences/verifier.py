"""Reads a model's answers to conditions: by a judge of the task, beside what the truth and the mean answer get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from tinyflux_pl.core.sequence_pairs import Pairs


def answers_of(images: Tensor) -> Tensor:
    """Decoded latents (B, D, N, 1) as sequences (B, N, D)."""
    return images[..., 0].mT


class Judge(Protocol):
    """Marks answers (B, N, D) to the conditions of pairs: (B,) bool for each claim and for `all`."""

    claims: tuple[str, ...]

    def check(self, pairs: Pairs, answers: Tensor) -> dict[str, Tensor]: ...


class NamedPairs(Protocol):
    """A source of pairs that finds a pair by its caption and provides the judge of its task."""

    def __len__(self) -> int: ...
    def named(self, captions: Sequence[str]) -> Pairs: ...
    def judge(self) -> Judge: ...
    def blocks(self) -> Iterator[Pairs]: ...


class AnswerReader:
    """Verifier of pairs. `truth` and `mean` are no claims of the answer but the judge's own measure:

    whether the true target would pass, and whether the training targets' mean, which listens to nothing, would.
    """

    def __init__(self, records: NamedPairs) -> None:
        self.records, self.judge = records, records.judge()
        self.claims = (*self.judge.claims, "truth", "mean")

    def check(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Answers (B, D, N, 1) to the conditions that the captions name: (B,) bool by claim, and for `all`."""
        pairs = self.records.named(prompts)
        found = self.judge.check(pairs, answers_of(images).cpu().float())
        bare = self._mean.expand(len(pairs), -1, -1)
        return {
            **found,
            "truth": self.judge.check(pairs, pairs.truth)["all"],
            "mean": self.judge.check(pairs, bare)["all"],
        }

    @cached_property
    def _mean(self) -> Tensor:
        """(1, N, D), token by token; padding counts as 0."""
        sums = [block.truth.double().sum(0) for block in self.records.blocks()]
        return (torch.stack(sums).sum(0) / len(self.records)).float()[None]


class NearestTarget:
    """Whether an answer lies nearer to its own target than to any other of the split, by real tokens (`all`).

    For data of which nothing else is known: a guess is right once in as many times as there are targets.
    """

    claims: tuple[str, ...] = ()

    def __init__(self, others: Tensor) -> None:
        self.others = others  # (M, N, D)

    def check(self, pairs: Pairs, answers: Tensor) -> dict[str, Tensor]:
        """answers (B, N, D); (B,) bool."""
        real = pairs.target_mask[..., None]

        def apart(left: Tensor, right: Tensor) -> Tensor:
            return ((left - right) * real).square().sum((1, 2))

        own, nearest = apart(answers, pairs.truth), torch.full((len(pairs),), torch.inf)
        for other in self.others:
            same = apart(pairs.truth, other) == 0  # the target itself, or a copy
            nearest = torch.minimum(nearest, apart(answers, other).masked_fill(same, torch.inf))
        return {"all": own < nearest}
