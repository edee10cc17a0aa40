"""Reads pictures of digits with a classifier that learned from scans the generator never sees."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyflux_pl.data.tasks.digits.grammar import parse
from tinyflux_pl.data.tasks.digits.scans import INK, SIDE, split_of

REACH = 1.25  # a picture is no digit if it lies further from every scan than this times what real scans do


class DigitReader:
    """Verifier of Digits: which digit each picture shows, or none where it is far from every scan of that digit.

    An RBF support vector machine, fitted once a process to the `reader` split alone.
    """

    claims = ("digit",)

    def read(self, images: Tensor) -> list[dict[str, Any]]:
        """Images (B, 3, H, H) in [-1, 1] -> for each: `digit` 0..9 or None, and `distance` to the nearest scan."""
        classifier, known, labels, limit = _fitted()
        pixels = ink_of(images)
        finite = np.isfinite(pixels).all(1)
        pixels = np.where(finite[:, None], pixels, np.float32(0.0))
        digits = classifier.predict(pixels)
        apart = np.where(labels[None, :] == digits[:, None], _distances(pixels, known), np.inf).min(1)
        return [
            {"digit": int(digit) if whole and distance <= limit else None, "distance": float(distance)}
            for digit, distance, whole in zip(digits, apart, finite, strict=True)
        ]

    def check(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Whether each picture shows the digit that its prompt names: (B,) bool for `digit`, and the same for `all`."""
        kept = [got["digit"] == parse(prompt) for got, prompt in zip(self.read(images), prompts, strict=True)]
        right = torch.tensor(kept, dtype=torch.bool, device=images.device)
        return {"digit": right, "all": right.clone()}


def ink_of(images: Tensor) -> np.ndarray:
    """Images (B, 3, H, H) in [-1, 1] -> ink (B, 64) in [0, 1]: the mean of each cell of an 8 x 8 grid."""
    ink = (images.detach().float().mean(1).clamp(-1.0, 1.0) + 1.0) / 2.0
    return F.adaptive_avg_pool2d(ink[:, None], SIDE).flatten(1).cpu().numpy()


def scans_of(split: str) -> tuple[np.ndarray, np.ndarray]:
    """A split's scans as ink (n, 64) in [0, 1], and their digits (n,)."""
    scans, digits = split_of(split)
    return scans.reshape(len(scans), -1).astype(np.float32) / np.float32(INK), digits


def _distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m) between rows."""
    return torch.cdist(torch.from_numpy(left), torch.from_numpy(right)).numpy()


@lru_cache(maxsize=1)
def _fitted() -> tuple[Any, np.ndarray, np.ndarray, float]:
    """The classifier, the scans (n, 64) and digits (n,) it knows, and the distance beyond which nothing is read."""
    from sklearn.svm import SVC

    known, labels = scans_of("reader")
    # gamma 0.001 suits ink in 0..16 (scikit-learn's own example); here ink runs to 1, hence 16 squared.
    classifier = SVC(C=10.0, gamma=0.001 * INK**2).fit(known, labels)
    apart = _distances(known, known)
    apart[(labels[:, None] != labels[None, :]) | np.eye(len(labels), dtype=bool)] = np.inf
    return classifier, known, labels, REACH * float(np.quantile(apart.min(1), 0.995))
