"""The base of every dataset: required methods, and defaults of the optional ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.record import Record
from tinyflux_pl.data.records.finding import Finding
from tinyflux_pl.data.records.precomputed_group import PrecomputedGroup


class RecordSource(ABC):
    """An indexed source of records whose order never changes; reading is lazy.

    `skipped` are files left out with the user's consent, with the reason; `findings` files not
    used. `kinds` counts the files that are read by suffix. `fit_mode` (crop | pad) is how pictures
    of other shapes are fitted. `reads_files`: a record costs a read from disk. A dataset whose
    pictures can be read back names `prompt_splits` and gives `prompts` and a `verifier`: runs then
    report prompt accuracy by split. `grammar` says in a sentence which captions it has; "": any
    text. `variants` is the largest number of captions that a record has. `precomputed`: groups of a
    store whose columns the dataset has already; without `has_pictures` there is nothing else.
    """

    name: str
    skipped: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    kinds: Mapping[str, int] = MappingProxyType({})
    fit_mode: str = "crop"
    reads_files: bool = False
    allow_missing_captions: bool = True
    skip_bad: bool | None = None  # leave out unreadable files; None: no such option
    prompt_splits: tuple[str, ...] = ()
    grammar: str = ""
    variants: int = 1
    precomputed: Mapping[str, PrecomputedGroup] = MappingProxyType({})
    has_pictures: bool = True

    @property
    def segments(self) -> Sequence[tuple[tuple[int, int] | None, int]]:
        """(height, width) and number of the records of each frame, in the order of the records.

        One segment of frame None: all records are of one shape.
        """
        return [(None, len(self))]

    def draw_rates(self) -> tuple[Sequence[int], Sequence[float]] | None:
        """Repeats in an epoch, and weight, of each record in order; None: all are 1."""
        return None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Record:
        """Record `index`; IndexError beyond the end, DataError for one that cannot be read."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Plain data that determines images and captions; a cache of another one is stale."""

    def sample_keys(self) -> list[Any] | None:
        """The inputs of each record as plain data, in order.

        None if they are unknown until it is read.
        """
        return None

    def columns(self, group: str, rows: Sequence[int]) -> dict[str, Tensor]:
        """Columns of one of the `precomputed` groups, of these records; DataError for others."""
        what = f"{self.name} has no columns of {group}"
        raise DataError(what, where=self.name, cure="leave it to the extraction")

    def columns_fingerprint(self, group: str) -> dict[str, Any]:
        """Plain data that determines those columns, of all records."""
        return {}

    def captions(self) -> list[tuple[str, str]] | None:
        """(name, caption) of each record, in order; None where no person has written them."""
        return None

    def paths(self) -> list[str] | None:
        """The file of each record's picture, in order; None for pictures that are made by rule."""
        return None

    def check(self) -> None:  # noqa: B027  (nothing to read is the usual answer)
        """Read everything that may be damaged; DataError names all faults before other work."""

    def require_one_kind(self) -> None:  # noqa: B027  (one kind is the usual answer)
        """Raise DataError for records of different kinds, which no batch can hold together."""

    def prompts(self, count: int, split: str, seed: int = 0) -> list[str]:
        """`count` prompts of one of `prompt_splits`, as a function of the seed."""
        return []

    def picture_overrides(self, caption: str) -> list[str]:
        """generate.py overrides (reference=FILE, ...): images of a record with this caption."""
        return []

    def verifier(self) -> Any | None:
        """The verifier of these captions (core.protocols.Verifier); None if there is none."""
        return None

    def novelty(self, images: Tensor) -> dict[str, dict[float, float]] | None:
        """Quantiles of the distance from pictures (B, 3, H, W) to the nearest training picture.

        None: not known.
        """
        return None

    def pictures(self, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, list[str]]:
        """Pictures (B, 3, H, W) of decoded samples (B, ...) for a preview, with captions."""
        return images, list(captions)
