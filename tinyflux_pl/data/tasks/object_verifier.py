"""The base of verifiers of drawn objects: find, describe, compare with the prompt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from tinyflux_pl.core.reading import Reading
from tinyflux_pl.data.tasks.shapes.detect import find_objects
from tinyflux_pl.data.verifier import PromptVerifier

MIN_FIT = 0.96  # drawn pictures with noise and blur stay above; ragged blobs fall below


class ObjectVerifier(PromptVerifier):
    """Reads square pictures at `side` pixels.

    Parts that fit no drawn shape to `min_fit` are not read.
    """

    side: ClassVar[int]

    def __init__(self, min_fit: float = MIN_FIT) -> None:
        self.min_fit = min_fit

    def read(self, images: Tensor) -> list[dict[str, Any]]:
        """Images (B, 3, H, H) in [-1, 1] -> descriptions with the `count` of parts and `fit`."""
        objects = find_objects(images, self.side)
        counts = objects.count.tolist()
        return [
            self.describe(parts, count)
            for parts, count in zip(objects.to_list(), counts, strict=True)
        ]

    def check(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Claims that each picture satisfies: (B,) bool for every claim, and for `all` of them."""
        rows = [
            self.compare(description, prompt)
            for description, prompt in zip(self.read(images), prompts, strict=True)
        ]
        return {
            claim: torch.tensor(
                [row[claim] for row in rows], dtype=torch.bool, device=images.device
            )
            for claim in (*self.claims, "all")
        }

    def reading(self, images: Tensor) -> Reading:
        """The share of pictures that have a description, and the mean fit of all."""
        descriptions = self.read(images)
        readable = sum(self.is_readable(description) for description in descriptions)
        fit = sum(description["fit"] for description in descriptions)
        return Reading(readable / len(descriptions), fit / len(descriptions))

    @abstractmethod
    def is_readable(self, description: dict[str, Any]) -> bool:
        """True if the picture could be described."""

    @abstractmethod
    def describe(self, parts: list[dict[str, Any]], count: int) -> dict[str, Any]:
        """The description of a picture with `count` parts, those of `parts` fitted."""

    @abstractmethod
    def compare(self, description: dict[str, Any], prompt: str) -> dict[str, bool]:
        """Each claim, and `all`.

        A claim that the prompt does not make holds for any readable picture.
        """
