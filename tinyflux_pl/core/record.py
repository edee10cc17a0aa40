"""One training example, as a dataset gives it, and the contract of a dataset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

NO_PICTURE = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Record:
    """One training example before encoding: RGB pixels (H, W, 3) uint8, caption, optional mask.

    `references` are further pictures (Hr, Wr, 3) that condition the denoiser; `inpaint_mask` (H, W)
    bool is True where it is to paint, and the rest of the picture conditions it. `hint` (H, W, 3)
    uint8 is the map that a control branch reads (data.records.hinted). Each step draws one of
    `caption` and `other_captions`. A record whose columns exist already has NO_PICTURE.
    """

    image: np.ndarray
    caption: str
    sample_id: int
    mask: np.ndarray | None = None
    source: str = ""  # the file it came from, for messages
    attributes: dict[str, Any] = field(default_factory=dict)
    references: tuple[np.ndarray, ...] = ()
    inpaint_mask: np.ndarray | None = None
    hint: np.ndarray | None = None
    other_captions: tuple[str, ...] = ()

    @property
    def has_picture(self) -> bool:
        """False for a record of columns alone: nothing can be read of its image."""
        return self.image.size > 0

    @property
    def captions(self) -> tuple[str, ...]:
        """Every caption, the first one first."""
        return (self.caption, *self.other_captions)


@runtime_checkable
class Records(Protocol):
    """An indexed source of records; index order is stable, reading is lazy.

    `reads_files` is True if a record costs a read from disk. `sample_keys` identifies each record
    by plain data without reading it, or is None where only reading can tell.
    """

    name: str
    reads_files: bool

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Record: ...
    def fingerprint(self) -> dict[str, Any]: ...
    def sample_keys(self) -> list[Any] | None: ...
