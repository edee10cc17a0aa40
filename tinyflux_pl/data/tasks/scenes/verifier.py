"""Reads pictures of several shapes back, and says which claims of a caption they keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.data.tasks.scenes.grammar import BASE, RELATIONS, Scene, parse
from tinyflux_pl.data.tasks.shapes.detect import find_objects
from tinyflux_pl.data.tasks.shapes.render import COLOURS, SHAPES
from tinyflux_pl.data.tasks.shapes.verifier import LEAST_FIT


class SceneReader:
    """Verifier of Scenes: colours, shapes, relation and count of the objects in each square picture.

    `colour` and `shape` compare multisets, `relation` asks that the objects named stand as the caption says,
    `count` that there are as many as it says; `all` also asks that each colour is on its own shape. A picture
    with no object, or with one that no drawn shape fits, reads as nothing and keeps no claim.
    """

    claims = ("colour", "shape", "relation", "count")

    def __init__(self, least_fit: float = LEAST_FIT) -> None:
        self.least_fit = least_fit

    def read(self, images: Tensor) -> list[dict[str, Any]]:
        """Images (B, 3, H, H) in [-1, 1] -> for each: `objects` of colour, shape, x, y; `count` of parts; `fit`."""
        found = find_objects(images, BASE)
        counts = found.count.tolist()
        return [self._one(parts, count) for parts, count in zip(found.to_list(), counts, strict=True)]

    def _one(self, parts: list[dict[str, Any]], count: int) -> dict[str, Any]:
        fit = min((part["fit"] for part in parts), default=0.0)
        objects = [
            {
                "colour": COLOURS[part["colour"]] if part["colour"] >= 0 else None,
                "shape": SHAPES[part["shape"]],
                "x": part["centre"][0],
                "y": part["centre"][1],
            }
            for part in parts
        ]
        return {"objects": objects if fit >= self.least_fit else [], "count": count, "fit": fit}

    def stated(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Which claims each caption makes (B,): a group states no relation, and is left out of its mean."""
        relation = torch.tensor([parse(prompt).relation is not None for prompt in prompts], dtype=torch.bool)
        always = torch.ones(len(prompts), dtype=torch.bool)
        return {claim: relation if claim == "relation" else always for claim in self.claims}

    def check(self, images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Which claims each picture keeps: (B,) bool for every claim and for `all` of them."""
        rows = [_kept(seen["objects"], parse(prompt)) for seen, prompt in zip(self.read(images), prompts, strict=True)]
        return {
            claim: torch.tensor([row[claim] for row in rows], dtype=torch.bool, device=images.device)
            for claim in (*self.claims, "all")
        }


def _kept(objects: list[dict[str, Any]], scene: Scene) -> dict[str, bool]:
    """Each claim of one scene; one that the scene does not make is kept by any picture that reads."""
    seen = [(thing["colour"], thing["shape"]) for thing in objects]
    kept = {
        "colour": sorted(str(colour) for colour, _ in seen) == sorted(colour for colour, _ in scene.objects),
        "shape": sorted(shape for _, shape in seen) == sorted(shape for _, shape in scene.objects),
        "relation": bool(objects) if scene.relation is None else _stands(objects, scene),
        "count": len(objects) == len(scene.objects),
    }
    bound = sorted(map(str, seen)) == sorted(map(str, scene.objects))
    return {**kept, "all": bound and all(kept.values())}


def _stands(objects: list[dict[str, Any]], scene: Scene) -> bool:
    """Whether the two objects named are there, and the first lies mostly in the relation's direction of the second."""
    named = [[o for o in objects if (o["colour"], o["shape"]) == pair] for pair in scene.objects]
    if [len(n) for n in named] != [1, 1]:
        return False
    dx, dy = (named[0][0][axis] - named[1][0][axis] for axis in ("x", "y"))
    right, down = RELATIONS[str(scene.relation)]
    along, across = dx * right + dy * down, dx * down + dy * right
    return along > abs(across)
