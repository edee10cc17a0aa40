"""The grammar of one shape: colours, shapes, sizes, positions, captions, and their parser."""

from __future__ import annotations

from functools import lru_cache

from tinyflux_pl.core.errors import CaptionError, ConfigError
from tinyflux_pl.data.tasks.shapes.render import COLOURS, SHAPES

SPLITS = ("train", "validation", "held_out")
BASE = 32  # the side that all lengths below refer to; other sizes scale them
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

# A Latin diagonal: each shape loses two of its eight colours, each colour one or two of its
# five shapes.
HELD_OUT_PAIRS = tuple(
    (c, s) for i, c in enumerate(COLOURS) for j, s in enumerate(SHAPES) if (i + j) % 4 == 3
)
SEEN_PAIRS = tuple((c, s) for c in COLOURS for s in SHAPES if (c, s) not in HELD_OUT_PAIRS)

TEMPLATES = (
    "{size_colour} {shape}, {position}",
    "{colour} {shape}, {size}, {place}",
    "{place}, {size_colour} {shape}",
    "{colour} {shape} {place}, {size}",
    "{position}: {size_colour} {shape}",
)
CAPTIONS_VERSION = 3  # raise it whenever a caption would come out differently
OPTIONAL = ("colour", "size", "position")
SHORT_CAPTIONS = 0.15  # the share of training captions that leave something out
GRAMMAR = (
    f"name a shape ({', '.join(SHAPES)}), and of these what you want, each once: a colour "
    f"({', '.join(COLOURS)}), a size ({', '.join(SIZES)}), a position ({', '.join(POSITIONS)}), "
    'as in "a large red circle, top left" or "a red circle"'
)
_FILLERS = {"a", "an", "the", "in", "at", "on"}
_ADVERBIALS = {
    "top": "at the top",
    "bottom": "at the bottom",
    "left": "on the left",
    "right": "on the right",
}


def article(noun: str) -> str:
    """The noun with a or an before it."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def pairs_of(split: str) -> tuple[tuple[str, str], ...]:
    """The colour and shape pairs that a split draws from.

    ConfigError for a split that does not exist.
    """
    if split not in SPLITS:
        raise ConfigError(
            f"no such split: {split!r}",
            where="data.split",
            cure="choose one of " + ", ".join(SPLITS),
        )
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
        place=_adverbial(position),
    )


def _short_caption(attributes: dict[str, str], template: int) -> str:
    """A shape with some of size, colour and position, in the order of one of the TEMPLATES."""
    words = [attributes[name] for name in ("size", "colour", "shape") if name in attributes]
    noun = article(" ".join(words))
    if "position" not in attributes:
        return noun
    position = attributes["position"]
    return (f"{noun}, {position}", f"{noun} {_adverbial(position)}", f"{position}: {noun}")[
        template % 3
    ]


def _adverbial(position: str) -> str:
    """The position as an adverbial."""
    return _ADVERBIALS.get(position, f"in the {position}")


def shortened(attributes: dict[str, str], uniform: float) -> dict[str, str]:
    """All attributes, or the shape and a proper part of the rest.

    The latter for `uniform` in [0, 1) below SHORT_CAPTIONS.
    """
    if uniform >= SHORT_CAPTIONS:
        return attributes
    parts = 2 ** len(OPTIONAL) - 1
    chosen = int(uniform / SHORT_CAPTIONS * parts)
    left_out = [name for bit, name in enumerate(OPTIONAL) if not chosen >> bit & 1]
    return {name: value for name, value in attributes.items() if name not in left_out}


@lru_cache(maxsize=65536)
def _parse(caption: str) -> tuple[tuple[str, str], ...]:
    words = (
        caption.lower()
        .replace(",", " ")
        .replace(":", " ")
        .rstrip(" .")
        .replace("center", "centre")
        .split()
    )
    words = [word for word in words if word not in _FILLERS]
    choices_of = {"colour": COLOURS, "shape": SHAPES, "size": SIZES}
    stated = {
        name: [word for word in words if word in choices] for name, choices in choices_of.items()
    }
    rest = " ".join(w for w in words if not any(w in choices for choices in choices_of.values()))
    if reason := _objection(stated, rest):
        raise CaptionError(f"not a caption of one shape: {caption!r} {reason}", cure=GRAMMAR)
    attributes = {name: values[0] for name, values in stated.items() if values}
    return tuple((attributes | ({"position": rest} if rest else {})).items())


def _objection(stated: dict[str, list[str]], rest: str) -> str:
    """The reason why a caption does not describe one shape; "" if it does."""
    twice = [
        f"two values of {name} ({', '.join(values)})"
        for name, values in stated.items()
        if len(values) > 1
    ]
    if twice:
        return f"has {' and '.join(twice)}"
    if not stated["shape"]:
        return "names no shape"
    return (
        f"holds {rest!r}, which is no colour, shape, size or position"
        if rest and rest not in POSITIONS
        else ""
    )


def parse(caption: str) -> dict[str, str]:
    """Attributes stated by a caption: a shape, and any of colour, position and size.

    CaptionError, with the grammar, for a caption with no shape, with two values of one kind or
    another word.
    """
    return dict(_parse(caption))
