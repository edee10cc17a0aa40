"""Handwritten digits as records: scikit-learn's scans, enlarged, with captions."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data.tasks.digits.grammar import GRAMMAR, TEMPLATES, caption_of
from tinyflux_pl.data.tasks.digits.novelty import neighbour_distances
from tinyflux_pl.data.tasks.digits.scans import SIDE, SPLITS, enlarge, split_of
from tinyflux_pl.data.tasks.digits.verifier import DigitVerifier
from tinyflux_pl.data.tasks.task_records import Example, TaskRecords, balanced


class Digits(TaskRecords):
    """Records of one scan each: white ink on black, each scanned pixel a square of pixels."""

    name = "digits"
    versions: ClassVar[dict[str, int]] = {"version": 1}
    min_size = SIDE
    options = ("name", "split", "count", "size")
    prompt_splits = ("train",)
    grammar = GRAMMAR

    def __init__(self, split: str = "train", count: int | None = None, size: int = 32) -> None:
        if size < SIDE or size % SIDE:
            cure = f"use a multiple of {SIDE}"
            raise ConfigError(f"digits: size {size}", where="data.image_size", cure=cure)
        images, digits = split_of(split)
        if count is not None and not 1 <= count <= len(digits):
            what = f"digits: {count} scans of {split}, which has {len(digits)}"
            cure = f"set count between 1 and {len(digits)}, or leave it out for all"
            raise ConfigError(what, where="data.count", cure=cure)
        self.images = images[:count]
        self.digits = digits[:count]
        super().__init__(split, len(self.digits), size)

    def example(self, index: int, seed: int) -> Example:
        """A scan with a random caption."""
        digit = int(self.digits[index])
        caption = caption_of(digit, seed % len(TEMPLATES))
        return Example(enlarge(self.images[index], self.size), caption, attributes={"digit": digit})

    def balanced_captions(
        self, count: int, split: str, generator: np.random.Generator
    ) -> list[str]:
        """Captions with every digit and template equally often, within one.

        No digit is held out.
        """
        if split not in SPLITS:
            cure = "choose one of " + ", ".join(SPLITS)
            raise ConfigError(f"digits: no such split: {split!r}", where="prompts", cure=cure)
        combinations = tuple((d, t) for t in range(len(TEMPLATES)) for d in range(10))
        return [caption_of(*each) for each in balanced(combinations, count, generator)]

    def verifier(self) -> DigitVerifier:
        """Compares pictures with these captions."""
        return DigitVerifier()

    def novelty(self, images: Tensor) -> dict[str, dict[float, float]]:
        """Distances of images (n, 3, H, H) and held-out scans to the nearest scan of this split."""
        enlarged = np.stack([enlarge(scan, self.size) for scan in self.images])
        training = torch.from_numpy(enlarged).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return neighbour_distances(images, training)
