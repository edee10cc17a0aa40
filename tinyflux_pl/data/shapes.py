"""One coloured shape a picture, drawn by rule, with a caption that states everything about it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import CaptionError, ConfigError
from tinyflux_pl.core.protocols import Record
from tinyflux_pl.data.records.record_source import RecordSource
from tinyflux_pl.data.shape_drawing import BACKGROUNDS, COLOURS, DRAWING_VERSION, SHAPES, Drawn, draw, jittered_colour

if TYPE_CHECKING:
    from tinyflux_pl.data.shape_reading import ShapeReader

SPLITS = ("train", "validation", "held_out")
BASE = 32  # the side for which all lengths below are given; other sizes scale them
RADII = {"small": 3.6, "medium": 5.2, "large": 7.2}
SIZES = tuple(RADII)
CENTRES = (9.0, 16.0, 23.0)
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")
POSITIONS = {
    f"{row} {column}".strip() or "centre": (CENTRES[j], CENTRES[i])  # (x, y)
    for i, row in enumerate(_ROWS)
    for j, column in enumerate(_COLUMNS)
}
CENTRE_JITTER, RADIUS_JITTER = 0.8, 0.04  # pixels, fraction

# A Latin diagonal: each shape loses two of its eight colours, each colour one or two of its five shapes.
HELD_OUT_PAIRS = tuple((c, s) for i, c in enumerate(COLOURS) for j, s in enumerate(SHAPES) if (i + j) % 4 == 3)
SEEN_PAIRS = tuple((c, s) for c in COLOURS for s in SHAPES if (c, s) not in HELD_OUT_PAIRS)

TEMPLATES = (
    "{size_colour} {shape}, {position}",
    "{colour} {shape}, {size}, {place}",
    "{place}, {size_colour} {shape}",
    "{colour} {shape} {place}, {size}",
    "{position}: {size_colour} {shape}",
)
GRAMMAR = (
    "state each once: a size (" + ", ".join(SIZES) + "), a colour (" + ", ".join(COLOURS) + "), a shape ("
    + ", ".join(SHAPES) + ") and a position (" + ", ".join(POSITIONS) + '), as in "a large red circle, top left"'
)  # fmt: skip
_FILLERS = {"a", "an", "the", "in", "at", "on"}
_PLACES = {"top": "at the top", "bottom": "at the bottom", "left": "on the left", "right": "on the right"}


def article(noun: str) -> str:
    """The noun with a or an before it."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def pairs_of(split: str) -> tuple[tuple[str, str], ...]:
    """The colour and shape pairs that a split draws from; ConfigError for a split that does not exist."""
    if split not in SPLITS:
        raise ConfigError(f"no such split: {split!r}", where="data.split", cure="choose one of " + ", ".join(SPLITS))
    return HELD_OUT_PAIRS if split == "held_out" else SEEN_PAIRS


def caption_of(attributes: dict[str, str], template: int) -> str:
    """The caption of one object in one of the TEMPLATES."""
    colour, position = attributes["colour"], attributes["position"]
    return TEMPLATES[template].format(
        shape=attributes["shape"],
        size=attributes["size"],
        position=position,
        colour=article(colour),
        size_colour=article(f"{attributes['size']} {colour}"),
        place=_PLACES.get(position, f"in the {position}"),
    )


@lru_cache(maxsize=65536)
def _parse(caption: str) -> tuple[str, str, str, str]:
    words = caption.lower().replace(",", " ").replace(":", " ").rstrip(" .").replace("center", "centre").split()
    words = [word for word in words if word not in _FILLERS]
    found = [[w for w in words if w in known] for known in (COLOURS, SHAPES, SIZES)]
    rest = [w for w in words if w not in COLOURS and w not in SHAPES and w not in SIZES]
    if any(len(f) != 1 for f in found) or " ".join(rest) not in POSITIONS:
        raise CaptionError(f"not a caption of one shape: {caption!r}", cure=GRAMMAR)
    return found[0][0], found[1][0], " ".join(rest), found[2][0]


def parse(caption: str) -> dict[str, str]:
    """What a caption claims: colour, shape, position, size. CaptionError, with the grammar, if it does not say."""
    return dict(zip(("colour", "shape", "position", "size"), _parse(caption), strict=True))


class Shapes(RecordSource):
    """Records of one shape on a light ground; each depends on (seed, split, index) alone.

    Image (size, size, 3) uint8, mask the shape's coverage (size, size) float32, attributes colour, shape,
    position, size. `train` and `validation` share the seen pairs of colour and shape, `held_out` has the others.
    """

    name = "shapes"
    prompt_splits = ("train", "held_out")

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
        u = np.random.default_rng(rng.derive(self.seed, f"shapes/{self.split}", index)).random(11)
        colour, shape = self.pairs[int(u[0] * len(self.pairs))]
        position, size = list(POSITIONS)[int(u[1] * 9)], SIZES[int(u[2] * 3)]
        attributes = {"colour": colour, "shape": shape, "position": position, "size": size}
        scale = self.size / BASE
        x, y = (scale * (c + CENTRE_JITTER * (2 * v - 1)) for c, v in zip(POSITIONS[position], u[3:5], strict=True))
        radius = scale * RADII[size] * (1 + RADIUS_JITTER * (2 * u[5] - 1))
        grey = BACKGROUNDS[0] + u[6] * (BACKGROUNDS[1] - BACKGROUNDS[0])
        image, mask = draw([Drawn(shape, jittered_colour(colour, u[7:10]), x, y, radius)], self.size, float(grey))
        caption = caption_of(attributes, int(u[10] * len(TEMPLATES)))
        identity = fingerprints.sample_id(image.tobytes(), caption)
        return Record(image, caption, identity, mask, f"shapes/{self.split}/{index}", dict(attributes))

    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the pixels and the captions."""
        return {
            "name": self.name,
            "drawing": DRAWING_VERSION,
            "split": self.split,
            "count": self.count,
            "size": self.size,
            "seed": self.seed,
        }

    def prompts(self, count: int, split: str = "train", seed: int = 0) -> list[str]:
        """`count` captions in which pairs, positions, sizes and templates each occur equally often, within one."""
        draw_order = np.random.default_rng(rng.derive(seed, f"shapes/prompts/{split}"))
        columns = [
            balanced(choices, count, draw_order)
            for choices in (pairs_of(split), tuple(POSITIONS), SIZES, tuple(range(len(TEMPLATES))))
        ]
        return [
            caption_of({"colour": c, "shape": s, "position": p, "size": z}, template)
            for (c, s), p, z, template in zip(*columns, strict=True)
        ]

    def verifier(self) -> ShapeReader:
        """The reader that checks pictures against these captions."""
        from tinyflux_pl.data.shape_reading import ShapeReader

        return ShapeReader()


def balanced(choices: tuple[Any, ...], count: int, order: np.random.Generator) -> list[Any]:
    """`count` of the choices in random order, each as often as the others, within one."""
    whole = [order.permutation(len(choices)) for _ in range(-(-count // len(choices)))]
    return [choices[int(i)] for i in np.concatenate(whole)[:count]] if count else []
