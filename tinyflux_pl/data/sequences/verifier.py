"""Verifier of sequence pairs: the task's judge on samples, true targets and the mean target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from tinyflux_pl.core.sequence_pairs import Pairs
from tinyflux_pl.data.verifier import PromptVerifier


def answers_of(images: Tensor) -> Tensor:
    """Decoded latents (B, D, N, 1) as sequences (B, N, D)."""
    return images[..., 0].mT


class Judge(Protocol):
    """Marks answers (B, N, D) to the conditions of pairs: (B,) bool by claim and `all`."""

    claims: tuple[str, ...]

    def check(self, pairs: Pairs, answers: Tensor) -> dict[str, Tensor]: ...


class NamedPairs(Protocol):
    """A source of pairs that finds a pair by its caption and provides the judge of its task."""

    def __len__(self) -> int: ...
    def named(self, captions: Sequence[str]) -> Pairs: ...
    def judge(self) -> Judge: ...
    def blocks(self) -> Iterator[Pairs]: ...


class AnswerVerifier(PromptVerifier):
    """The judge's claims, and two measures of the judge itself.

    `truth`: the true target passes. `mean`: the mean training target, which ignores the condition,
    passes.
    """

    def __init__(self, records: NamedPairs) -> None:
        self.records = records
        self.judge = records.judge()
        self.claims = (*self.judge.claims, "truth", "mean")

    def check(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Mark answers (B, D, N, 1) to the captions' conditions: (B,) bool by claim."""
        pairs = self.records.named(prompts)
        marks = self.judge.check(pairs, answers_of(images).cpu().float())
        mean = self._mean.expand(len(pairs), -1, -1)
        return {
            **marks,
            "truth": self.judge.check(pairs, pairs.truth)["all"],
            "mean": self.judge.check(pairs, mean)["all"],
        }

    @cached_property
    def _mean(self) -> Tensor:
        """(1, N, D), token by token; padding counts as 0."""
        sums = [block.truth.double().sum(0) for block in self.records.blocks()]
        return (torch.stack(sums).sum(0) / len(self.records)).float()[None]


class NearestTarget:
    """`all`: the answer is nearer to its own target than to any other of the split, by real tokens.

    For data without a judge of its own: a guess is correct once in as many times as there are
    targets.
    """

    claims: tuple[str, ...] = ()

    def __init__(self, targets: Tensor) -> None:
        self.targets = targets  # (M, N, D)

    def check(self, pairs: Pairs, answers: Tensor) -> dict[str, Tensor]:
        """Mark answers (B, N, D): (B,) bool."""
        real = pairs.target_mask[..., None]

        def distance(left: Tensor, right: Tensor) -> Tensor:
            return ((left - right) * real).square().sum((1, 2))

        to_truth = distance(answers, pairs.truth)
        to_nearest = torch.full((len(pairs),), torch.inf)
        for target in self.targets:
            is_same = distance(pairs.truth, target) == 0  # the target itself, or a copy
            to_target = distance(answers, target).masked_fill(is_same, torch.inf)
            to_nearest = torch.minimum(to_nearest, to_target)
        return {"all": to_truth < to_nearest}
