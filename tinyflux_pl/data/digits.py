"""Real handwritten digits: scikit-learn's 1,797 scans of 8 x 8 pixels, with captions.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998); shipped with scikit-learn,
so nothing is downloaded. No scan is in two splits: the generator learns from `train`, is compared with
`validation`, and is judged by a classifier that learned from `reader`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import CaptionError, ConfigError
from tinyflux_pl.core.protocols import Record
from tinyflux_pl.data.records.record_source import RecordSource

if TYPE_CHECKING:
    from torch import Tensor

    from tinyflux_pl.data.digit_reading import DigitReader

SIDE, INK = 8, 16  # a scan's pixels along a side, and its darkest ink
SPLITS = {"train": (0, 900), "validation": (900, 1000), "reader": (1000, 1797)}
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GRAMMAR = 'name one digit, as a word or a figure: "the digit seven" or "a handwritten 7"'
TEMPLATES = ("the digit {name}", "a handwritten {name}", "a handwritten {digit}", "the digit {digit}")


@lru_cache(maxsize=1)
def scans() -> tuple[np.ndarray, np.ndarray]:
    """All scans (1797, 8, 8) uint8 of ink 0 to 16 and their digits, shuffled once and for all.

    scikit-learn's order follows the writers, so a cut of it would be no fair sample.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(rng.derive(0, "digits/split")).permutation(len(found.target))
    return found.images[order].astype(np.uint8), found.target[order].astype(np.int64)


def split_of(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The scans and digits of a split: `reader` is for the classifier that judges, never for a generator."""
    if split not in SPLITS:
        raise ConfigError(f"no such split: {split!r}", where="data.split", cure="choose one of " + ", ".join(SPLITS))
    images, digits = scans()
    return images[slice(*SPLITS[split])], digits[slice(*SPLITS[split])]


def caption_of(digit: int, template: int) -> str:
    """The caption of one digit in one of the TEMPLATES."""
    return TEMPLATES[template].format(name=NAMES[digit], digit=digit)


def parse(caption: str) -> int:
    """The digit that a caption names; CaptionError, with the grammar, if it names none or several."""
    words = caption.lower().replace(",", " ").replace(".", " ").split()
    found = {NAMES.index(w) for w in words if w in NAMES} | {int(w) for w in words if w.isdecimal() and len(w) == 1}
    if len(found) != 1:
        count = "several digits" if found else "no digit"
        raise CaptionError(f"not a caption of one digit: {caption!r} names {count}", cure=GRAMMAR)
    return found.pop()


class Digits(RecordSource):
    """Records of one scan each: white ink on black, every scanned pixel a square of image pixels."""

    name = "digits"
    prompt_splits = ("train",)
    grammar = GRAMMAR

    def __init__(self, split: str = "train", count: int | None = None, size: int = 32) -> None:
        if size < SIDE or size % SIDE:
            raise ConfigError(f"digits: size {size}", where="data.image_size", cure=f"use a multiple of {SIDE}")
        images, digits = split_of(split)
        if count is not None and not 1 <= count <= len(digits):
            cure = f"set count between 1 and {len(digits)}, or leave it out for all"
            raise ConfigError(
                f"digits: {count} scans of {split}, which has {len(digits)}", where="data.count", cure=cure
            )
        self.split, self.size = split, size
        self.images, self.digits = images[:count], digits[:count]
        self.image_shape = (size, size, 3)

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        image, digit = enlarge(self.images[index], self.size), int(self.digits[index])
        caption = caption_of(digit, rng.derive(0, f"digits/{self.split}", index) % len(TEMPLATES))
        identity = fingerprints.sample_id(image.tobytes(), caption)
        return Record(image, caption, identity, None, f"digits/{self.split}/{index}", {"digit": digit})

    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the pixels and the captions."""
        return {"name": self.name, "version": 1, "split": self.split, "count": len(self), "size": self.size}

    def prompts(self, count: int, split: str = "train", seed: int = 0) -> list[str]:
        """`count` captions with every digit and template equally often, within one; no digit is held out."""
        if split not in SPLITS:
            raise ConfigError(
                f"digits: no such split: {split!r}", where="prompts", cure="choose one of " + ", ".join(SPLITS)
            )
        order = np.random.default_rng(rng.derive(seed, f"digits/prompts/{split}"))
        both = [(d, t) for t in range(len(TEMPLATES)) for d in range(10)]
        rounds = [order.permutation(len(both)) for _ in range(-(-count // len(both)))]
        return [caption_of(*both[i]) for i in np.concatenate(rounds)[:count].tolist()] if count else []

    def verifier(self) -> DigitReader:
        """The classifier that reads pictures back."""
        from tinyflux_pl.data.digit_reading import DigitReader

        return DigitReader()

    def novelty(self, images: Tensor) -> dict[str, dict[float, float]]:
        """How far pictures (n, 3, H, H) lie from the nearest scan of this split, beside held-out real scans."""
        import torch

        from tinyflux_pl.data.digit_neighbours import neighbour_distances

        known = np.stack([enlarge(scan, self.size) for scan in self.images])
        training = torch.from_numpy(known).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return neighbour_distances(images, training)


def enlarge(scan: np.ndarray, size: int) -> np.ndarray:
    """(8, 8) of ink 0 to 16 -> (size, size, 3) uint8."""
    grey = np.round(scan.astype(np.float32) * (255 / INK)).astype(np.uint8)
    block = size // SIDE
    return np.repeat(np.kron(grey, np.ones((block, block), np.uint8))[:, :, None], 3, axis=2)
