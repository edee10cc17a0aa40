"""Bar charts from lists of bars: a synthetic sequence task with known answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.sequence_pairs import Pairs, PairShape
from tinyflux_pl.data.sequences.records import PairRecords, answers_of, select

SPLITS = ("train", "validation")
COLUMNS = 6
MIN_BARS = 2
HELD_OUT = 16  # one chart in so many belongs to the validation split


class BarCharts(PairRecords):
    """2 to 6 tokens (column, height), in any order, to the 36 cells of a 6 x 6 chart.

    Cells are 1 inside a bar and -1 outside. Positions of the list are (i, 0, 0), of the chart
    (0, row, column), row 0 on top. Columns without a token are empty. Charts are drawn at random
    from 117,612, each in as many orders as its bars allow. One chart in HELD_OUT, in any order of
    its bars, belongs to the validation split and is never trained on.
    """

    name = "bar_charts"
    shape = PairShape(
        tokens=COLUMNS * COLUMNS,
        width=1,
        condition_tokens=COLUMNS,
        condition_width=2,
        axes=3,
        vector=1,
    )

    def __init__(self, split: str = "train", count: int = 4096, held_out: int = 256) -> None:
        if split not in SPLITS:
            raise ConfigError(
                f"no such split: {split!r}", where="data.split", cure=f"one of {', '.join(SPLITS)}"
            )
        if min(count, held_out) < 1:
            what = f"{count} charts to learn from, {held_out} held out"
            raise ConfigError(what, where="data", cure="ask for at least one of each")
        self.split, self.sizes = split, (count, held_out)
        self.count = count if split == "train" else held_out
        row, column = torch.meshgrid(torch.arange(COLUMNS), torch.arange(COLUMNS), indexing="ij")
        self.ids = torch.stack((torch.zeros_like(row), row, column), -1).flatten(0, 1).float()

    def __len__(self) -> int:
        return self.count

    def pairs(self, rows: Sequence[int]) -> Pairs:
        """Lists and charts; a label holds the heights from left to right."""
        return select(self._pairs, list(rows))

    @cached_property
    def _pairs(self) -> Pairs:
        condition = torch.zeros(self.count, COLUMNS, 2)
        mask = torch.zeros(self.count, COLUMNS, dtype=torch.bool)
        heights = torch.zeros(self.count, COLUMNS)
        for i in range(self.count):
            columns, heights[i] = self._chart(i)
            condition[i, : len(columns)] = torch.stack((columns.float(), heights[i, columns]), -1)
            mask[i, : len(columns)] = True
        index = torch.arange(COLUMNS).float()[:, None] * torch.tensor([1.0, 0.0, 0.0])
        from_below = COLUMNS - torch.arange(COLUMNS)
        chart = torch.where(from_below[:, None] <= heights[:, None], 1.0, -1.0)
        return Pairs(
            condition=condition,
            condition_ids=index * mask[..., None],
            condition_mask=mask,
            vector=torch.zeros(self.count, 1),
            target_ids=self.ids.expand(self.count, -1, -1),
            target_mask=torch.ones(self.count, COLUMNS * COLUMNS, dtype=torch.bool),
            labels=[_label(bars) for bars in heights],
            target=chart.flatten(1)[..., None],
        )

    def _chart(self, i: int) -> tuple[Tensor, Tensor]:
        """The columns of the bars, in the order of the tokens, and the heights of all columns."""
        attempt = 0
        while True:
            g = rng.generator(0, f"bar_charts/{self.split}", i, attempt)
            bars = int(torch.randint(MIN_BARS, COLUMNS + 1, (), generator=g))
            columns = torch.randperm(COLUMNS, generator=g)[:bars]
            heights = torch.zeros(COLUMNS)
            heights[columns] = torch.randint(1, COLUMNS + 1, (bars,), generator=g).float()
            is_held_out = rng.derive(0, "bar_charts/held_out", int(_label(heights))) % HELD_OUT == 0
            if is_held_out == (self.split == "validation"):
                return columns, heights
            attempt += 1

    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the pairs."""
        return {"name": self.name, "version": 2, "split": self.split, "count": self.count}

    def of_split(self, split: str) -> BarCharts:
        """Charts of another stream."""
        return BarCharts(split, *self.sizes)

    def judge(self) -> ChartJudge:
        """Compare charts cell by cell."""
        return ChartJudge()

    def pictures(self, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, list[str]]:
        """The answered chart next to the true one.

        The heights from left to right as the caption.
        """
        pairs = self.named(captions)
        both = [
            cells[..., 0].unflatten(1, (COLUMNS, -1))
            for cells in (answers_of(images).float(), pairs.truth)
        ]
        grey = torch.cat((both[0], both[0].new_ones(len(pairs), COLUMNS, 1), both[1]), 2).clamp(
            -1, 1
        )
        return grey[:, None].expand(-1, 3, -1, -1), [
            f"{label}: drawn, true" for label in pairs.labels
        ]


def _label(heights: Tensor) -> str:
    """One digit a column."""
    return "".join(str(int(height)) for height in heights)


class ChartJudge:
    """`all`: every cell of an answered chart has the correct sign.

    `all_but_two`: at most two do not.
    """

    claims = ("all_but_two",)

    def check(self, pairs: Pairs, answers: Tensor) -> dict[str, Tensor]:
        """Mark answers (B, 36, 1): (B,) bool."""
        wrong = ((answers > 0) != (pairs.truth > 0)).flatten(1).sum(1)
        return {"all": wrong == 0, "all_but_two": wrong <= 2}
