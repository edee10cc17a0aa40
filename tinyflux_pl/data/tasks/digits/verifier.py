"""Verifier of digit pictures: a classifier trained on scans that the generator never sees."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyflux_pl.core.reading import Reading
from tinyflux_pl.data.tasks.digits.grammar import parse
from tinyflux_pl.data.tasks.digits.scans import INK, SIDE, split_of
from tinyflux_pl.data.verifier import PromptVerifier

# A picture is no digit if it is further from every scan than this times the distance between
# real scans.
DISTANCE_FACTOR = 1.25
DISTANCE_QUANTILE = 0.995


class DigitVerifier(PromptVerifier):
    """The digit that each picture shows, or none if it is far from every scan of that digit.

    An RBF support vector machine, fitted once per process to the `reader` split alone.
    """

    claims = ("digit",)

    def read(self, images: Tensor) -> list[dict[str, Any]]:
        """Images (B, 3, H, H) in [-1, 1] -> `digit` 0..9 or None, `distance` to nearest scan."""
        fitted = _fitted()
        pixels = ink_of(images)
        finite = np.isfinite(pixels).all(1)
        pixels = np.where(finite[:, None], pixels, np.float32(0.0))
        digits = fitted.classifier.predict(pixels)
        same_digit = fitted.digits[None, :] == digits[:, None]
        nearest = np.where(same_digit, _distances(pixels, fitted.scans), np.inf).min(1)
        return [
            {
                "digit": int(digit) if is_finite and distance <= fitted.max_distance else None,
                "distance": float(distance),
            }
            for digit, distance, is_finite in zip(digits, nearest, finite, strict=True)
        ]

    def check(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """(B,) bool for `digit` and `all`: True where an image shows the digit of its prompt."""
        correct = [
            seen["digit"] == parse(prompt)
            for seen, prompt in zip(self.read(images), prompts, strict=True)
        ]
        column = torch.tensor(correct, dtype=torch.bool, device=images.device)
        return {"digit": column, "all": column.clone()}

    def reading(self, images: Tensor) -> Reading:
        """The share of pictures that are near enough to a scan to be a digit."""
        digits = [seen["digit"] is not None for seen in self.read(images)]
        return Reading(sum(digits) / len(digits))


def ink_of(images: Tensor) -> np.ndarray:
    """Images (B, 3, H, H) in [-1, 1] -> ink (B, 64) in [0, 1], means of an 8 x 8 grid."""
    ink = (images.detach().float().mean(1).clamp(-1.0, 1.0) + 1.0) / 2.0
    return F.adaptive_avg_pool2d(ink[:, None], SIDE).flatten(1).cpu().numpy()


def scans_of(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The scans of a split as ink (n, 64) in [0, 1], and their digits (n,)."""
    scans, digits = split_of(split)
    return scans.reshape(len(scans), -1).astype(np.float32) / np.float32(INK), digits


def _distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, m) between rows."""
    return torch.cdist(torch.from_numpy(left), torch.from_numpy(right)).numpy()


class _Fitted(NamedTuple):
    """The fitted classifier: scans (n, 64), digits (n,), and the largest accepted distance."""

    classifier: Any
    scans: np.ndarray
    digits: np.ndarray
    max_distance: float


@lru_cache(maxsize=1)
def _fitted() -> _Fitted:
    from sklearn.svm import SVC

    scans, digits = scans_of("reader")
    # gamma 0.001 suits ink in 0..16 (scikit-learn's own example); here ink is in 0..1, hence 16^2
    classifier = SVC(C=10.0, gamma=0.001 * INK**2).fit(scans, digits)
    distances = _distances(scans, scans)
    distances[(digits[:, None] != digits[None, :]) | np.eye(len(digits), dtype=bool)] = np.inf
    largest = float(np.quantile(distances.min(1), DISTANCE_QUANTILE))
    return _Fitted(classifier, scans, digits, DISTANCE_FACTOR * largest)
