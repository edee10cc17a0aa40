"""One coloured shape a picture, drawn by rule, with a caption that describes it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tinyflux_pl.data.tasks.shapes.grammar import (
    BASE,
    CAPTIONS_VERSION,
    CENTRE_JITTER,
    GRAMMAR,
    POSITIONS,
    RADII,
    RADIUS_JITTER,
    SHORT_CAPTIONS,
    SIZES,
    TEMPLATES,
    caption_of,
    pairs_of,
    shortened,
)
from tinyflux_pl.data.tasks.shapes.render import (
    BACKGROUNDS,
    DRAWING_VERSION,
    ShapeInstance,
    draw,
    jittered_colour,
)
from tinyflux_pl.data.tasks.shapes.verifier import ShapeVerifier
from tinyflux_pl.data.tasks.task_records import Example, TaskRecords, balanced


class Shapes(TaskRecords):
    """Records of one shape on a light background.

    Mask: the shape's coverage (size, size) float32. Attributes: colour, shape, position, size; a
    share SHORT_CAPTIONS of the captions leaves some of them out. `train` and `validation` share the
    seen pairs of colour and shape, `held_out` has the others.
    """

    name = "shapes"
    versions: ClassVar[dict[str, int]] = {"drawing": DRAWING_VERSION, "captions": CAPTIONS_VERSION}
    prompt_splits = ("train", "held_out", "short")
    min_size = 16
    grammar = GRAMMAR

    def __init__(
        self, split: str = "train", count: int = 4096, size: int = BASE, seed: int = 0
    ) -> None:
        super().__init__(split, count, size, seed)
        self.pairs = pairs_of(split)

    def example(self, index: int, seed: int) -> Example:
        """A shape with random colour, position, size, background and caption."""
        u = np.random.default_rng(seed).random(12)
        colour, shape = self.pairs[int(u[0] * len(self.pairs))]
        position = list(POSITIONS)[int(u[1] * 9)]
        size = SIZES[int(u[2] * 3)]
        attributes = {"colour": colour, "shape": shape, "position": position, "size": size}
        scale = self.size / BASE
        x, y = (
            scale * (centre + CENTRE_JITTER * (2 * v - 1))
            for centre, v in zip(POSITIONS[position], u[3:5], strict=True)
        )
        radius = scale * RADII[size] * (1 + RADIUS_JITTER * (2 * u[5] - 1))
        grey = BACKGROUNDS[0] + u[6] * (BACKGROUNDS[1] - BACKGROUNDS[0])
        instance = ShapeInstance(shape, jittered_colour(colour, u[7:10]), x, y, radius)
        image, mask = draw([instance], self.size, float(grey))
        template = int(u[10] * len(TEMPLATES))
        caption = caption_of(shortened(attributes, float(u[11])), template)
        return Example(image, caption, mask, dict(attributes))

    def balanced_captions(
        self, count: int, split: str, generator: np.random.Generator
    ) -> list[str]:
        """Captions with pairs, positions, sizes and templates equally often, within one.

        They state every attribute, but for the split `short`: seen pairs, and each choice of what
        is left out equally often.
        """
        pairs = pairs_of("train" if split == "short" else split)
        templates = tuple(range(len(TEMPLATES)))
        choices = (pairs, tuple(POSITIONS), SIZES, templates)
        columns = [balanced(c, count, generator) for c in choices]
        cuts = tuple(SHORT_CAPTIONS * i / 7 for i in range(7)) if split == "short" else (1.0,)
        columns.append(balanced(cuts, count, generator))
        captions = []
        for (colour, shape), position, size, template, cut in zip(*columns, strict=True):
            attributes = {"colour": colour, "shape": shape, "position": position, "size": size}
            captions.append(caption_of(shortened(attributes, cut), template))
        return captions

    def verifier(self) -> ShapeVerifier:
        """Compares pictures with these captions."""
        return ShapeVerifier()
