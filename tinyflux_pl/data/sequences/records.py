"""Sequence pairs as records: targets as images, and captions that name their conditions."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.core.record import Record
from tinyflux_pl.core.sequence_pairs import Pairs, PairShape
from tinyflux_pl.data.records.record_source import RecordSource
from tinyflux_pl.data.sequences.verifier import AnswerVerifier, answers_of

BLOCK = 1024  # pairs at once; no result depends on it
MAX_FIELD = (32, 96)  # largest height and width of a sequence's picture, in channels and tokens
_CAPTION = re.compile(r"(\w+)/(\d+)(?: \(.*\))?")
_SPLITS = {"held_out": "validation"}  # as prompts call them


class PairRecords(RecordSource):
    """A source of pairs: `pairs` gives them by row, padded to `shape`; the rest follows.

    A record's image is its target (N, 1, D) in fp32; its caption is "split/row (label)", which
    `named` reads back.
    """

    split: str
    shape: PairShape
    prompt_splits = ("held_out", "train")

    @abstractmethod
    def pairs(self, rows: Sequence[int]) -> Pairs:
        """These pairs of the split, in this order."""

    @abstractmethod
    def of_split(self, split: str) -> PairRecords:
        """The pairs of another split of the same source."""

    @abstractmethod
    def judge(self) -> Any:
        """The judge of answers; see sequences.verifier.Judge."""

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        pair = self.pairs([index])
        caption = self._caption(index, pair.labels[0])
        attributes = {
            "target_ids": pair.target_ids[0].numpy(),
            "target_mask": pair.target_mask[0].numpy(),
        }
        return Record(
            pair.truth[0, :, None].numpy(), caption, pair.identities()[0], None, caption, attributes
        )

    def blocks(self) -> Iterator[Pairs]:
        """All pairs, BLOCK at a time."""
        for start in range(0, len(self), BLOCK):
            yield self.pairs(range(start, min(start + BLOCK, len(self))))

    def sample_keys(self) -> list[list[Any]]:
        """The identity and the name of each pair."""
        identified = (
            each
            for block in self.blocks()
            for each in zip(block.identities(), block.labels, strict=True)
        )
        return [
            [identity, self._caption(row, label)]
            for row, (identity, label) in enumerate(identified)
        ]

    def names(self, rows: Sequence[int]) -> list[str]:
        """The names of these pairs."""
        labels = self.pairs(rows).labels if rows else []
        return [self._caption(row, label) for row, label in zip(rows, labels, strict=True)]

    def prompts(self, count: int, split: str = "held_out", seed: int = 0) -> list[str]:
        """The names of `count` pairs, or of all if there are fewer, in an order of the seed."""
        source = self._split(_SPLITS.get(split, split))
        order = torch.randperm(len(source), generator=rng.generator(seed, f"pairs/{split}"))
        return source.names(order[:count].tolist())

    def named(self, captions: Sequence[str]) -> Pairs:
        """The pairs that these captions name; CaptionError for one that names none."""
        by_split: dict[str, list[tuple[int, int]]] = {}
        for position, caption in enumerate(captions):
            match = _CAPTION.fullmatch(caption)
            source = (
                self._split(match[1])
                if match and match[1] in ("train", "validation", self.split)
                else None
            )
            if match is None or source is None or int(match[2]) >= len(source):
                raise CaptionError(
                    f"names no pair of {self.name}: {caption!r}",
                    cure="write train/0 or validation/17",
                )
            by_split.setdefault(match[1], []).append((position, int(match[2])))
        parts = [self._split(s).pairs([row for _, row in rows]) for s, rows in by_split.items()]
        positions = [position for rows in by_split.values() for position, _ in rows]
        return select(concatenate(parts), torch.tensor(positions).argsort().tolist())

    def verifier(self) -> AnswerVerifier:
        """Compare answers with the pairs that their captions name."""
        return AnswerVerifier(self)

    def pictures(self, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, list[str]]:
        """Samples (B, D, N, 1) as images (B, 3, H, W): a grey row per channel, the target below."""
        pairs = self.named(captions)
        truth = _field(pairs.truth)
        answers = _field(answers_of(images))
        low = truth.amin((1, 2), keepdim=True)
        high = truth.amax((1, 2), keepdim=True)
        both = torch.cat((answers, high.expand(-1, 1, truth.shape[2]), truth), 1)
        grey = ((both - low) / (high - low).clamp(min=1e-6)).mul(2).sub(1).clamp(-1, 1)
        return grey[:, None].expand(-1, 3, -1, -1), [
            f"{caption}: drawn, true" for caption in captions
        ]

    def _caption(self, row: int, label: str) -> str:
        return f"{self.split}/{row}" + (f" ({label})" if label else "")

    def _split(self, split: str) -> PairRecords:
        if split == self.split:
            return self
        siblings: dict[str, PairRecords] = self.__dict__.setdefault("_siblings", {})
        if split not in siblings:
            siblings[split] = self.of_split(split)
        return siblings[split]


def select(pairs: Pairs, rows: list[int]) -> Pairs:
    """The chosen pairs."""
    tensors = {f.name: getattr(pairs, f.name) for f in fields(Pairs) if f.name != "labels"}
    chosen = {name: None if value is None else value[rows] for name, value in tensors.items()}
    return replace(pairs, **chosen, labels=[pairs.labels[row] for row in rows])


def concatenate(parts: Sequence[Pairs]) -> Pairs:
    """Concatenate pairs, all of which have targets."""
    names = [f.name for f in fields(Pairs) if f.name != "labels"]
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return Pairs(**columns, labels=[label for part in parts for label in part.labels])


def _field(sequences: Tensor) -> Tensor:
    """(B, N, D) -> (B, D, N), averaged down to MAX_FIELD."""
    channels = sequences.mT
    return F.adaptive_avg_pool2d(
        channels, (min(MAX_FIELD[0], channels.shape[1]), min(MAX_FIELD[1], channels.shape[2]))
    )
