"""Lower halves of scanned digits from upper halves: a sequence task with verifiable answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.sequence_pairs import Pairs, PairShape
from tinyflux_pl.data.sequences.records import PairRecords, answers_of
from tinyflux_pl.data.tasks.digits.scans import INK, SIDE, scans
from tinyflux_pl.data.tasks.digits.verifier import DigitVerifier

# Scans that the verifier was not fitted to (it was fitted to 1000 to 1796).
SPLITS = {"train": (0, 800), "validation": (800, 1000)}


class DigitHalves(PairRecords):
    """scikit-learn's 8 x 8 scans: the upper rows as tokens, to the lower ones.

    A token is a square of `patch` x `patch` pixels of ink in [0, 1], row by row, at the position
    (0, row, column) of the full scan.
    """

    name = "digit_halves"

    def __init__(self, split: str = "train", patch: int = 2) -> None:
        if split not in SPLITS:
            raise ConfigError(
                f"no such split: {split!r}", where="data.split", cure=f"one of {', '.join(SPLITS)}"
            )
        if patch not in (1, 2, 4):
            raise ConfigError(
                f"digit_halves: patch {patch}", where="data.patch", cure="use 1, 2 or 4"
            )
        images, digits = scans()
        rows = slice(*SPLITS[split])
        self.split = split
        self.patch = patch
        self.tokens = to_squares(torch.from_numpy(images[rows]).float().div(INK), patch)
        self.digits = digits[rows].tolist()
        side = SIDE // patch
        row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        self.ids = torch.stack((torch.zeros_like(row), row, column), -1).flatten(0, 1).float()
        half = side * side // 2
        self.shape = PairShape(half, patch * patch, half, patch * patch, axes=3, vector=1)

    def __len__(self) -> int:
        return len(self.digits)

    def pairs(self, rows: Sequence[int]) -> Pairs:
        """Upper and lower halves; labels are the digits."""
        tokens = self.tokens[list(rows)]
        count = len(rows)
        half = self.shape.tokens
        real = torch.ones(count, half, dtype=torch.bool)
        return Pairs(
            condition=tokens[:, :half],
            condition_ids=self.ids[:half].expand(count, -1, -1),
            condition_mask=real,
            vector=torch.zeros(count, 1),
            target_ids=self.ids[half:].expand(count, -1, -1),
            target_mask=real,
            labels=[str(self.digits[row]) for row in rows],
            target=tokens[:, half:],
        )

    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the pairs."""
        return {"name": self.name, "version": 1, "split": self.split, "patch": self.patch}

    def of_split(self, split: str) -> DigitHalves:
        """The scans of another split, with the same patches."""
        return DigitHalves(split, self.patch)

    def judge(self) -> CompletedDigits:
        """Read completed digits."""
        return CompletedDigits()

    def pictures(self, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, list[str]]:
        """Upper half, completed digit and real digit in one column.

        The caption has the digit read.
        """
        pairs = self.named(captions)
        judge = self.judge()
        completed = judge.images(pairs, answers_of(images).float())
        real = judge.images(pairs, pairs.truth)
        line = real.new_ones(len(real), 3, 1, SIDE)
        upper = real.clone()
        upper[:, :, SIDE // 2 :] = -1
        read = [seen["digit"] for seen in DigitVerifier().read(completed)]
        texts = [
            f"a {label}, read as {'none' if r is None else r}"
            for label, r in zip(pairs.labels, read, strict=True)
        ]
        return torch.cat((upper, line, completed, line, real), 2), texts


class CompletedDigits:
    """True where DigitVerifier reads the digit of the pair in the completed scan."""

    claims = ("digit",)

    def check(self, pairs: Pairs, answers: Tensor) -> dict[str, Tensor]:
        """Mark answers (B, N, patch^2) of ink: (B,) bool."""
        read = DigitVerifier().read(self.images(pairs, answers))
        seen_and_labels = zip(read, pairs.labels, strict=True)
        correct = torch.tensor([str(seen["digit"]) == label for seen, label in seen_and_labels])
        return {"digit": correct, "all": correct.clone()}

    def images(self, pairs: Pairs, answers: Tensor) -> Tensor:
        """The completed scans (B, 3, 8, 8) in [-1, 1]."""
        ink = from_squares(torch.cat((pairs.condition, answers.float()), 1))
        return ink.mul(2).sub(1).clamp(-1, 1)[:, None].expand(-1, 3, -1, -1)


def to_squares(scans: Tensor, patch: int) -> Tensor:
    """(B, 8, 8) -> tokens (B, (8 / patch)^2, patch^2), row by row."""
    return rearrange(scans, "b (r p) (c q) -> b (r c) (p q)", p=patch, q=patch)


def from_squares(tokens: Tensor) -> Tensor:
    """The inverse of `to_squares`."""
    patch = math.isqrt(tokens.shape[-1])
    return rearrange(tokens, "b (r c) (p q) -> b (r p) (c q)", r=SIDE // patch, p=patch)
