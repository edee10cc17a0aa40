"""Crops of scikit-image's photographs: real pictures with nothing to download."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from tinyflux_pl.core import fingerprint, rng
from tinyflux_pl.core.errors import ConfigError, MissingDependency
from tinyflux_pl.core.record import Record
from tinyflux_pl.data.records.record_source import RecordSource

NAMES = ("astronaut", "chelsea", "coffee", "rocket")  # in colour, shipped with the package
SPLITS = ("train", "validation")
HELD_OUT = 0.25  # of each photograph's width, at its right: validation crops alone lie there
MOST_REDUCED = 3.0  # sides of a crop, in units of `size`, before it is reduced to it


@lru_cache(maxsize=1)
def photographs() -> tuple[np.ndarray, ...]:
    """The photographs (H, W, 3) uint8; MissingDependency without scikit-image."""
    try:
        from skimage import data
    except ImportError as error:
        what = "data=photographs are scikit-image's, which is not installed"
        cure = "pip install scikit-image"
        raise MissingDependency(what, where="data=photographs", cure=cure) from error
    return tuple(np.ascontiguousarray(getattr(data, name)()[..., :3]) for name in NAMES)


class Photographs(RecordSource):
    """Square crops (size, size, 3), of `size` to three times that before they are reduced.

    Place and size of crop i depend on i alone. `validation` crops lie in the right quarter of each
    photograph, which no `train` crop touches.
    """

    name = "photographs"

    def __init__(self, count: int, size: int, split: str = "train") -> None:
        if split not in SPLITS:
            raise ConfigError(
                f"no such split: {split!r}", where="data.split", cure=" or ".join(SPLITS)
            )
        self.count, self.size, self.split = count, size, split

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self.count:
            raise IndexError(index)
        name, region = NAMES[index % len(NAMES)], self._region(index % len(NAMES))
        height, width = region.shape[:2]
        random = np.random.default_rng(rng.derive(0, f"photographs/{self.split}/{index}"))
        largest = min(height, width, round(MOST_REDUCED * self.size))
        side = int(random.integers(min(self.size, largest), largest + 1))
        top, left = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
        crop = Image.fromarray(region[top : top + side, left : left + side])
        image = np.array(crop.resize((self.size, self.size), Image.Resampling.BOX))
        identity = fingerprint.sample_id(image.tobytes(), f"{self.split}/{index}")
        source = f"photographs/{self.split}/{index}"
        return Record(image, f"a part of the photograph {name}", identity, source=source)

    def fingerprint(self) -> dict[str, Any]:
        """Plain data that determines the crops."""
        keys = {"count": self.count, "size": self.size, "split": self.split}
        return {"name": self.name, "version": 1, **keys}

    def sample_keys(self) -> list[Any]:
        """Index and size."""
        return [[self.name, 1, self.split, self.size, index] for index in range(self.count)]

    def _region(self, number: int) -> np.ndarray:
        """The part of a photograph that belongs to the split."""
        photograph = photographs()[number]
        border = round(photograph.shape[1] * (1 - HELD_OUT))
        return photograph[:, :border] if self.split == "train" else photograph[:, border:]
