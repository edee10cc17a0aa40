"""Real handwritten digits: scikit-learn's 1,797 scans of 8 x 8 pixels, with captions.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998); shipped with
scikit-learn, so nothing is downloaded. No scan is in two splits: the generator learns from `train`,
is compared with `validation`, and is verified by a classifier fitted to `reader`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError

SIDE = 8  # pixels of a scan
INK = 16  # its darkest ink
SPLITS = {"train": (0, 900), "validation": (900, 1000), "reader": (1000, 1797)}


@lru_cache(maxsize=1)
def scans() -> tuple[np.ndarray, np.ndarray]:
    """All scans (1797, 8, 8) uint8 of ink 0 to 16 and their digits, in a fixed random order.

    scikit-learn's order follows the writers, so a slice of it would be a biased sample.
    """
    from sklearn.datasets import load_digits

    dataset = load_digits()
    order = np.random.default_rng(rng.derive(0, "digits/split")).permutation(len(dataset.target))
    return dataset.images[order].astype(np.uint8), dataset.target[order].astype(np.int64)


def split_of(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The scans and digits of a split: `reader` is for the verifier, never for training."""
    if split not in SPLITS:
        raise ConfigError(
            f"no such split: {split!r}",
            where="data.split",
            cure="choose one of " + ", ".join(SPLITS),
        )
    images, digits = scans()
    return images[slice(*SPLITS[split])], digits[slice(*SPLITS[split])]


def enlarge(scan: np.ndarray, size: int) -> np.ndarray:
    """(8, 8) of ink 0 to 16 -> (size, size, 3) uint8."""
    grey = np.round(scan.astype(np.float32) * (255 / INK)).astype(np.uint8)
    block = size // SIDE
    return np.repeat(np.kron(grey, np.ones((block, block), np.uint8))[:, :, None], 3, axis=2)
