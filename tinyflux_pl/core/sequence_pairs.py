"""The values of sequence tasks: conditions, targets, sizes, and moments of their channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.fingerprint import sample_id


@dataclass(frozen=True)
class Pairs:
    """Conditions and, if known, their targets; fp32, padding is zero.

    Ids say where each token stands, masks are True on real tokens. `target` is None where it is
    still to be drawn. `labels` are free words, one a pair.
    """

    condition: Float[Tensor, "b l c"]
    condition_ids: Float[Tensor, "b l a"]
    condition_mask: Bool[Tensor, "b l"]
    vector: Float[Tensor, "b p"]
    target_ids: Float[Tensor, "b n a"]
    target_mask: Bool[Tensor, "b n"]
    labels: list[str]
    target: Float[Tensor, "b n d"] | None = None

    def __len__(self) -> int:
        return len(self.condition)

    @property
    def truth(self) -> Float[Tensor, "b n d"]:
        """The targets; DataError if they are unknown."""
        if self.target is None:
            raise DataError(
                "pairs without targets", where="Pairs", cure="give both `condition` and `target`"
            )
        return self.target

    def identities(self) -> list[int]:
        """Sample ids: 63 bits of the hash of each pair's real tokens, position ids and vector."""
        sample_ids = []
        for i in range(len(self)):
            condition_mask = self.condition_mask[i]
            target_mask = self.target_mask[i]
            parts = [
                self.condition[i][condition_mask],
                self.condition_ids[i][condition_mask],
                self.vector[i],
                self.target_ids[i][target_mask],
            ]
            parts += [] if self.target is None else [self.target[i][target_mask]]
            content = b"".join(part.contiguous().numpy().tobytes() for part in parts)
            sample_ids.append(sample_id(content, self.labels[i]))
        return sample_ids


@dataclass(frozen=True)
class PairShape:
    """Sizes of the pairs of a source.

    Targets have N tokens of width D, conditions L tokens of width C, position ids A columns.
    `vector` is the width of the vector beside each condition; 1 where there is none, and then it is
    zero.
    """

    tokens: int
    width: int
    condition_tokens: int
    condition_width: int
    axes: int
    vector: int


@dataclass(frozen=True)
class Moments:
    """Mean and spread of each channel over real tokens of the training data; spread is never 0."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    @classmethod
    def over(cls, blocks: Iterable[Float[Tensor, "_n k"]]) -> Moments:
        """Moments of the rows of all blocks, in fp64; constant channels have spread 1."""
        count, mean, squares = 0, torch.zeros(()), torch.zeros(())
        for block in blocks:
            rows = block.double()
            if not len(rows):
                continue
            block_mean = rows.mean(0)
            total = count + len(rows)
            delta = block_mean - mean
            within = (rows - block_mean).square().sum(0)
            squares = squares + within + delta.square() * (count * len(rows) / total)
            mean = mean + delta * (len(rows) / total)
            count = total
        spread = (squares / max(count, 1)).sqrt()
        spread = torch.where(spread > 1e-6 * mean.abs().clamp(min=1e-6), spread, 1.0)
        return cls(tuple(mean.tolist()), tuple(spread.tolist()))

    def normalised(self, values: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
        """(values - mean) / spread, channels last."""
        return (values - values.new_tensor(self.mean)) / values.new_tensor(self.spread)

    def restored(self, values: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
        """The inverse of `normalised`."""
        return values * values.new_tensor(self.spread) + values.new_tensor(self.mean)

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return {"mean": list(self.mean), "spread": list(self.spread)}
