"""Reads pictures of one shape back, and says which claims of a caption they keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.data.tasks.shapes.detect import find_objects
from tinyflux_pl.data.tasks.shapes.grammar import BASE, POSITIONS, RADII, parse
from tinyflux_pl.data.tasks.shapes.render import COLOURS, SHAPES

LEAST_FIT = 0.96  # drawn pictures with noise and blur stay above; ragged blobs fall below
SIZE_REACH = 0.25  # how far, as a fraction, a radius may lie outside the range of sizes
NOTHING: dict[str, Any] = {"colour": None, "shape": None, "position": None, "size": None}


class ShapeReader:
    """Verifier of Shapes: colour, shape, position and size of the one object in each square picture.

    A picture with no object, with several, or with one that no drawn shape fits, reads as nothing and keeps
    no claim.
    """

    claims = ("colour", "shape", "position", "size")

    def __init__(self, least_fit: float = LEAST_FIT) -> None:
        self.least_fit = least_fit

    def read(self, images: Tensor) -> list[dict[str, Any]]:
        """Images (B, 3, H, H) in [-1, 1] -> for each: the four claims or None, `count` of parts, `fit`."""
        found = find_objects(images, BASE)
        counts = found.count.tolist()
        return [self._one(parts, count) for parts, count in zip(found.to_list(), counts, strict=True)]

    def _one(self, parts: list[dict[str, Any]], count: int) -> dict[str, Any]:
        fit = max((part["fit"] for part in parts), default=0.0)
        nothing = {**NOTHING, "count": count, "fit": fit}
        if count != 1 or fit < self.least_fit:
            return nothing
        part = parts[0]
        (x, y), radius = part["centre"], part["radius"]
        known = (1 - SIZE_REACH) * min(RADII.values()) <= radius <= (1 + SIZE_REACH) * max(RADII.values())
        return {
            "colour": COLOURS[part["colour"]] if part["colour"] >= 0 else None,
            "shape": SHAPES[part["shape"]],
            "position": min(POSITIONS, key=lambda p: (POSITIONS[p][0] - x) ** 2 + (POSITIONS[p][1] - y) ** 2),
            # Sizes are ratios, so the boundary between two of them is their geometric mean.
            "size": min(RADII, key=lambda s: max(RADII[s] / radius, radius / RADII[s])) if known else None,
            "count": 1,
            "fit": fit,
        }

    def stated(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Which claims each caption makes (B,) bool."""
        captions = [parse(prompt) for prompt in prompts]
        return {
            claim: torch.tensor([claim in caption for caption in captions], dtype=torch.bool) for claim in self.claims
        }

    def check(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Which claims each picture keeps: (B,) bool for every claim and for `all` of them.

        A claim that the caption does not make is kept by any picture of one readable shape.
        """
        rows = [
            [got["shape"] is not None and got[claim] == want.get(claim, got[claim]) for claim in self.claims]
            for got, want in zip(self.read(images), map(parse, prompts), strict=True)
        ]
        kept = torch.tensor(rows, dtype=torch.bool, device=images.device).view(-1, len(self.claims))
        return {**dict(zip(self.claims, kept.T, strict=True)), "all": kept.all(1)}
