"""Handwritten digits as records: scikit-learn's scans, enlarged, with captions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Record
from tinyflux_pl.data.records.record_source import RecordSource
from tinyflux_pl.data.tasks.digits.grammar import GRAMMAR, TEMPLATES, caption_of
from tinyflux_pl.data.tasks.digits.scans import SIDE, SPLITS, enlarge, split_of

if TYPE_CHECKING:
    from torch import Tensor

    from tinyflux_pl.data.tasks.digits.verifier import DigitReader


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
        from tinyflux_pl.data.tasks.digits.verifier import DigitReader

        return DigitReader()

    def novelty(self, images: Tensor) -> dict[str, dict[float, float]]:
        """How far pictures (n, 3, H, H) lie from the nearest scan of this split, beside held-out real scans."""
        import torch

        from tinyflux_pl.data.tasks.digits.novelty import neighbour_distances

        known = np.stack([enlarge(scan, self.size) for scan in self.images])
        training = torch.from_numpy(known).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return neighbour_distances(images, training)
