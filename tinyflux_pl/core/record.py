"""One training example, as a dataset gives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Record:
    """One training example before encoding: RGB pixels (H, W, 3) uint8, caption, optional mask.

    `references` are other pictures (Hr, Wr, 3) that the denoiser is shown; `hole` (H, W) bool is
    True where it is to paint, and then it is shown the rest.
    """

    image: np.ndarray
    caption: str
    sample_id: int
    mask: np.ndarray | None = None
    source: str = ""  # the file it came from, for messages
    attributes: dict[str, Any] = field(default_factory=dict)
    references: tuple[np.ndarray, ...] = ()
    hole: np.ndarray | None = None
