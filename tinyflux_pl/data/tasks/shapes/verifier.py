"""Verifier of pictures of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.data.tasks.object_verifier import ObjectVerifier
from tinyflux_pl.data.tasks.shapes.grammar import BASE, POSITIONS, RADII, parse
from tinyflux_pl.data.tasks.shapes.render import COLOURS, SHAPES

SIZE_TOLERANCE = 0.25  # fraction by which a radius may lie outside the range of sizes


class ShapeVerifier(ObjectVerifier):
    """Colour, shape, position and size of the one object in each square picture.

    A picture with no object, with several, or with one that no drawn shape fits, satisfies no
    claim.
    """

    claims = ("colour", "shape", "position", "size")
    side = BASE

    def describe(self, parts: list[dict[str, Any]], count: int) -> dict[str, Any]:
        """The four claims, each None if it cannot be read."""
        fit = max((part["fit"] for part in parts), default=0.0)
        if count != 1 or fit < self.min_fit:
            return {**dict.fromkeys(self.claims), "count": count, "fit": fit}
        part = parts[0]
        return {
            "colour": COLOURS[part["colour"]] if part["colour"] >= 0 else None,
            "shape": SHAPES[part["shape"]],
            "position": _nearest_position(*part["centre"]),
            "size": _nearest_size(part["radius"]),
            "count": 1,
            "fit": fit,
        }

    def is_readable(self, description: dict[str, Any]) -> bool:
        """True if the picture has one object, of a drawn shape."""
        return description["shape"] is not None

    def compare(self, description: dict[str, Any], prompt: str) -> dict[str, bool]:
        """Each claim, and `all`.

        A claim that the prompt does not make holds for any readable picture.
        """
        stated = parse(prompt)
        satisfied = {
            claim: self.is_readable(description)
            and description[claim] == stated.get(claim, description[claim])
            for claim in self.claims
        }
        return {**satisfied, "all": all(satisfied.values())}

    def stated(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Claims that each prompt makes: (B,) bool for every claim."""
        parsed = [parse(prompt) for prompt in prompts]
        return {
            claim: torch.tensor([claim in attributes for attributes in parsed], dtype=torch.bool)
            for claim in self.claims
        }


def _nearest_position(x: float, y: float) -> str:
    return min(
        POSITIONS, key=lambda name: (POSITIONS[name][0] - x) ** 2 + (POSITIONS[name][1] - y) ** 2
    )


def _nearest_size(radius: float) -> str | None:
    smallest = (1 - SIZE_TOLERANCE) * min(RADII.values())
    largest = (1 + SIZE_TOLERANCE) * max(RADII.values())
    if not smallest <= radius <= largest:
        return None
    # Sizes are ratios, so the boundary between two of them is their geometric mean.
    return min(RADII, key=lambda size: max(RADII[size] / radius, radius / RADII[size]))
