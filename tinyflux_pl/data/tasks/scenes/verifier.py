"""Verifier of pictures of several shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinyflux_pl.data.tasks.object_verifier import ObjectVerifier
from tinyflux_pl.data.tasks.scenes.grammar import BASE, RELATIONS, Scene, parse
from tinyflux_pl.data.tasks.shapes.render import COLOURS, SHAPES


class SceneVerifier(ObjectVerifier):
    """Colours, shapes, relation and count of the objects in each square picture.

    `colour` and `shape` compare multisets, `relation` requires that the named objects stand as the
    caption says, `count` that there are as many; `all` also requires each colour on its own shape.
    A picture with no object, or with one that no drawn shape fits, satisfies no claim.
    """

    claims = ("colour", "shape", "relation", "count")
    side = BASE

    def describe(self, parts: list[dict[str, Any]], count: int) -> dict[str, Any]:
        """`objects` of colour, shape, x, y; none if one of them cannot be read."""
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
        return {"objects": objects if fit >= self.min_fit else [], "count": count, "fit": fit}

    def is_readable(self, description: dict[str, Any]) -> bool:
        """True if every part of the picture is a drawn shape."""
        return bool(description["objects"])

    def compare(self, description: dict[str, Any], prompt: str) -> dict[str, bool]:
        """Each claim, and `all`.

        A claim that the prompt does not make holds for any readable picture.
        """
        scene = parse(prompt)
        objects = description["objects"]
        pairs = [(each["colour"], each["shape"]) for each in objects]
        colours = sorted(str(colour) for colour, _ in pairs)
        shapes = sorted(shape for _, shape in pairs)
        satisfied = {
            "colour": colours == sorted(colour for colour, _ in scene.objects),
            "shape": shapes == sorted(shape for _, shape in scene.objects),
            "relation": bool(objects)
            if scene.relation is None
            else _relation_holds(objects, scene),
            "count": len(objects) == len(scene.objects),
        }
        same_pairs = sorted(map(str, pairs)) == sorted(map(str, scene.objects))
        return {**satisfied, "all": same_pairs and all(satisfied.values())}

    def stated(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Claims that each prompt makes: (B,) bool for every claim. A group states no relation."""
        stated = super().stated(prompts)
        relations = [parse(prompt).relation is not None for prompt in prompts]
        return {**stated, "relation": torch.tensor(relations, dtype=torch.bool)}


def _relation_holds(objects: list[dict[str, Any]], scene: Scene) -> bool:
    """True if both named objects exist and the first lies in the relation's main direction."""
    matches = [[o for o in objects if (o["colour"], o["shape"]) == pair] for pair in scene.objects]
    if [len(match) for match in matches] != [1, 1]:
        return False
    (first,), (second,) = matches
    dx = first["x"] - second["x"]
    dy = first["y"] - second["y"]
    right, down = RELATIONS[str(scene.relation)]
    along = dx * right + dy * down
    across = dx * down + dy * right
    return along > abs(across)
