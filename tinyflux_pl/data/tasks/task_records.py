"""The base of the built-in tasks: square pictures and captions, each a function of its index."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.record import Record
from tinyflux_pl.data.records.record_source import RecordSource


@dataclass(frozen=True)
class Example:
    """A picture (size, size, 3) uint8, its caption, mask (size, size) float32 and attributes."""

    image: np.ndarray
    caption: str
    mask: np.ndarray | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


class TaskRecords(RecordSource):
    """Records that depend on (seed, split, index) alone.

    A task implements `example` and `balanced_captions`. `versions` are the parts of its fingerprint
    that are raised whenever pictures or captions change; `options` names the attributes in it.
    `min_size` is the smallest side in pixels.
    """

    versions: ClassVar[dict[str, int]]
    min_size: ClassVar[int]
    options: ClassVar[tuple[str, ...]] = ("name", "split", "count", "size", "seed")

    def __init__(self, split: str, count: int, size: int, seed: int = 0) -> None:
        if count < 1 or size < self.min_size:
            what = f"{self.name}: count {count}, size {size}"
            raise ConfigError(what, where="data", cure=f"count >= 1 and size >= {self.min_size}")
        self.split = split
        self.count = count
        self.size = size
        self.seed = seed
        self.image_shape = (size, size, 3)

    @abstractmethod
    def example(self, index: int, seed: int) -> Example:
        """The picture and the caption of a record; `seed` is derived from (seed, split, index)."""

    @abstractmethod
    def balanced_captions(
        self, count: int, split: str, generator: np.random.Generator
    ) -> list[str]:
        """`count` captions with every choice of the grammar equally often, within one."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self.count:
            raise IndexError(index)
        seed = rng.derive(self.seed, f"{self.name}/{self.split}", index)
        example = self.example(index, seed)
        return Record(
            image=example.image,
            caption=example.caption,
            sample_id=fingerprints.sample_id(example.image.tobytes(), example.caption),
            mask=example.mask,
            source=f"{self.name}/{self.split}/{index}",
            attributes=example.attributes,
        )

    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the pixels and the captions."""
        return {**self.versions, **{name: getattr(self, name) for name in self.options}}

    def prompts(self, count: int, split: str = "train", seed: int = 0) -> list[str]:
        """`count` balanced captions of a split, as a function of the seed."""
        generator = np.random.default_rng(rng.derive(seed, f"{self.name}/prompts/{split}"))
        return self.balanced_captions(count, split, generator)


def balanced(choices: tuple[Any, ...], count: int, generator: np.random.Generator) -> list[Any]:
    """`count` of the choices in random order, each equally often, within one."""
    if not count:
        return []
    rounds = [generator.permutation(len(choices)) for _ in range(-(-count // len(choices)))]
    return [choices[int(i)] for i in np.concatenate(rounds)[:count]]
