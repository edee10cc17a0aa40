"""One coloured shape a picture, drawn by rule, with a caption that states everything about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Record
from tinyflux_pl.data.records.record_source import RecordSource
from tinyflux_pl.data.tasks.balanced import balanced
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
from tinyflux_pl.data.tasks.shapes.render import BACKGROUNDS, DRAWING_VERSION, Drawn, draw, jittered_colour

if TYPE_CHECKING:
    from tinyflux_pl.data.tasks.shapes.verifier import ShapeReader


class Shapes(RecordSource):
    """Records of one shape on a light ground; each depends on (seed, split, index) alone.

    Image (size, size, 3) uint8, mask the shape's coverage (size, size) float32, attributes colour, shape,
    position, size; SHORT_CAPTIONS of the captions leave some of them out. `train` and `validation` share the
    seen pairs of colour and shape, `held_out` has the others.
    """

    name = "shapes"
    prompt_splits = ("train", "held_out", "short")
    grammar = GRAMMAR

    def __init__(self, split: str = "train", count: int = 4096, size: int = BASE, seed: int = 0) -> None:
        self.pairs = pairs_of(split)
        if count < 1 or size < 16:
            raise ConfigError(f"shapes: count {count}, size {size}", where="data", cure="count >= 1 and size >= 16")
        self.split, self.count, self.size, self.seed = split, count, size, seed
        self.image_shape = (size, size, 3)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self.count:
            raise IndexError(index)
        u = np.random.default_rng(rng.derive(self.seed, f"shapes/{self.split}", index)).random(12)
        colour, shape = self.pairs[int(u[0] * len(self.pairs))]
        position, size = list(POSITIONS)[int(u[1] * 9)], SIZES[int(u[2] * 3)]
        attributes = {"colour": colour, "shape": shape, "position": position, "size": size}
        scale = self.size / BASE
        x, y = (scale * (c + CENTRE_JITTER * (2 * v - 1)) for c, v in zip(POSITIONS[position], u[3:5], strict=True))
        radius = scale * RADII[size] * (1 + RADIUS_JITTER * (2 * u[5] - 1))
        grey = BACKGROUNDS[0] + u[6] * (BACKGROUNDS[1] - BACKGROUNDS[0])
        image, mask = draw([Drawn(shape, jittered_colour(colour, u[7:10]), x, y, radius)], self.size, float(grey))
        caption = caption_of(shortened(attributes, float(u[11])), int(u[10] * len(TEMPLATES)))
        identity = fingerprints.sample_id(image.tobytes(), caption)
        return Record(image, caption, identity, mask, f"shapes/{self.split}/{index}", dict(attributes))

    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the pixels and the captions."""
        return {
            "name": self.name,
            "drawing": DRAWING_VERSION,
            "captions": CAPTIONS_VERSION,
            "split": self.split,
            "count": self.count,
            "size": self.size,
            "seed": self.seed,
        }

    def prompts(self, count: int, split: str = "train", seed: int = 0) -> list[str]:
        """`count` captions in which pairs, positions, sizes and templates each occur equally often, within one.

        They state every attribute, but for the split `short`: seen pairs, and each choice of what is left out
        equally often.
        """
        generator = np.random.default_rng(rng.derive(seed, f"shapes/prompts/{split}"))
        pairs = pairs_of("train" if split == "short" else split)
        templates = tuple(range(len(TEMPLATES)))
        columns = [balanced(c, count, generator) for c in (pairs, tuple(POSITIONS), SIZES, templates)]
        choices = tuple(SHORT_CAPTIONS * i / 7 for i in range(7)) if split == "short" else (1.0,)
        cuts = balanced(choices, count, generator)
        captions = []
        for (colour, shape), position, size, template, cut in zip(*columns, cuts, strict=True):
            stated = {"colour": colour, "shape": shape, "position": position, "size": size}
            captions.append(caption_of(shortened(stated, cut), template))
        return captions

    def verifier(self) -> ShapeReader:
        """The reader that checks pictures against these captions."""
        from tinyflux_pl.data.tasks.shapes.verifier import ShapeReader

        return ShapeReader()
