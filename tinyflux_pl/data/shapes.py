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
CAPTIONS_VERSION = 2  # raise it whenever a caption would come out differently
OPTIONAL = ("colour", "size", "position")
SHORT_CAPTIONS = 0.3  # the share of training captions that leave something out
GRAMMAR = (
    "name a shape (" + ", ".join(SHAPES) + "), and of these what you want, each once: a colour ("
    + ", ".join(COLOURS) + "), a size (" + ", ".join(SIZES) + "), a position (" + ", ".join(POSITIONS)
    + '), as in "a large red circle, top left" or "a red circle"'
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
    """The caption of one object: in one of the TEMPLATES, or in a shorter form that says less."""
    if any(attribute not in attributes for attribute in OPTIONAL):
        return _short_caption(attributes, template)
    colour, position = attributes["colour"], attributes["position"]
    return TEMPLATES[template].format(
        shape=attributes["shape"],
        size=attributes["size"],
        position=position,
        colour=article(colour),
        size_colour=article(f"{attributes['size']} {colour}"),
        place=_placed(position),
    )


def _short_caption(attributes: dict[str, str], template: int) -> str:
    """A shape with some of size, colour and position, in the order of one of the TEMPLATES."""
    words = [attributes[name] for name in ("size", "colour", "shape") if name in attributes]
    noun = article(" ".join(words))
    if "position" not in attributes:
        return noun
    position = attributes["position"]
    return (f"{noun}, {position}", f"{noun} {_placed(position)}", f"{position}: {noun}")[template % 3]


def _placed(position: str) -> str:
    """The position as an adverbial."""
    return _PLACES.get(position, f"in the {position}")


def shortened(attributes: dict[str, str], uniform: float) -> dict[str, str]:
    """All attributes, or for `uniform` in [0, 1) below SHORT_CAPTIONS the shape and a proper part of the rest."""
    if uniform >= SHORT_CAPTIONS:
        return attributes
    parts = 2 ** len(OPTIONAL) - 1
    chosen = int(uniform / SHORT_CAPTIONS * parts)
    left_out = [name for bit, name in enumerate(OPTIONAL) if not chosen >> bit & 1]
    return {name: value for name, value in attributes.items() if name not in left_out}


@lru_cache(maxsize=65536)
def _parse(caption: str) -> tuple[tuple[str, str], ...]:
    words = caption.lower().replace(",", " ").replace(":", " ").rstrip(" .").replace("center", "centre").split()
    words = [word for word in words if word not in _FILLERS]
    known = {"colour": COLOURS, "shape": SHAPES, "size": SIZES}
    stated = {name: [word for word in words if word in choices] for name, choices in known.items()}
    rest = " ".join(w for w in words if not any(w in choices for choices in known.values()))
    if why := _unclear(stated, rest):
        raise CaptionError(f"not a caption of one shape: {caption!r} {why}", cure=GRAMMAR)
    attributes = {name: values[0] for name, values in stated.items() if values}
    return tuple((attributes | ({"position": rest} if rest else {})).items())


def _unclear(stated: dict[str, list[str]], rest: str) -> str:
    """Why a caption does not describe one shape, or nothing."""
    twice = [f"two values of {name} ({', '.join(values)})" for name, values in stated.items() if len(values) > 1]
    if twice:
        return f"has {' and '.join(twice)}"
    if not stated["shape"]:
        return "names no shape"
    return f"holds {rest!r}, which is no colour, shape, size or position" if rest and rest not in POSITIONS else ""


def parse(caption: str) -> dict[str, str]:
    """What a caption states: a shape, and those of colour, position and size that it names.

    CaptionError, with the grammar, for a caption with no shape, with two values of one kind or another word.
    """
    return dict(_parse(caption))


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
        from tinyflux_pl.data.shape_reading import ShapeReader

        return ShapeReader()


def balanced(choices: tuple[Any, ...], count: int, order: np.random.Generator) -> list[Any]:
    """`count` of the choices in random order, each as often as the others, within one."""
    whole = [order.permutation(len(choices)) for _ in range(-(-count // len(choices)))]
    return [choices[int(i)] for i in np.concatenate(whole)[:count]] if count else []
