"""The grammar of scenes: relations and counts of objects, their captions, and the parser of captions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.data.tasks.shapes.grammar import article
from tinyflux_pl.data.tasks.shapes.render import COLOURS, SHAPES

SCENES_VERSION = 3  # raise it whenever scenes are put together otherwise; DRAWING_VERSION is for their shapes
BASE = 48  # the side for which all lengths below are given; other sizes scale them
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}  # (x, y), y down
COUNTS = {"two": 2, "three": 3, "four": 4}
RADII = (5.0, 6.4)
APART, ASIDE = (18.0, 23.0), 4.0  # pixels between two centres along the relation; at most, across it
EDGE = 9.0  # pixels from a centre to the picture's edge
CELLS = (8.2, 24.0, 39.8)  # centres of the cells that objects of a group are put in, each in its own
CELL_JITTER, GROUP_RADII = 0.6, (4.4, 5.0)

_PLURALS = {shape: "crosses" if shape == "cross" else shape + "s" for shape in SHAPES}
_SINGULARS = {**{plural: shape for shape, plural in _PLURALS.items()}, **{shape: shape for shape in SHAPES}}
_TEMPLATES = ("{first} {relation} {second}", "{first} is {relation} {second}")
_GROUP_TEMPLATES = ("{number} {colour} {shapes}", "a picture of {number} {colour} {shapes}")
SHORT_CAPTIONS = 0.15  # the share of captions of two objects that state no relation
_LONG = {"left of": "to the left of", "right of": "to the right of"}
GRAMMAR = (
    'say "a red circle left of a blue square" (relations: ' + ", ".join(RELATIONS)
    + '), "a red circle and a blue square", or "three green triangles" ('
    + ", ".join(COUNTS) + "); colours: " + ", ".join(COLOURS) + "; shapes: " + ", ".join(SHAPES)
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """What a caption claims: its (colour, shape) objects, and how the first stands to the second, or None.

    Without a relation they are alike, or two that may stand anywhere.
    """

    objects: tuple[tuple[str, str], ...]
    relation: str | None = None

    def caption(self, template: int) -> str:
        """In words; even and odd templates differ in form."""
        colour, shape = self.objects[0]
        if self.relation is None and len(set(self.objects)) == 2:
            return " and ".join(f"{article(c)} {s}" for c, s in self.objects)
        if self.relation is None:
            number = list(COUNTS)[len(self.objects) - 2]
            return _GROUP_TEMPLATES[template % 2].format(number=number, colour=colour, shapes=_PLURALS[shape])
        first, second = (f"{article(c)} {s}" for c, s in self.objects)
        relation = _LONG.get(self.relation, self.relation) if template % 2 else self.relation
        return _TEMPLATES[template % 2].format(first=first, second=second, relation=relation)


@lru_cache(maxsize=65536)
def parse(caption: str) -> Scene:
    """What a caption claims; CaptionError, with the grammar, if it cannot be read."""
    words = [
        w for w in caption.lower().rstrip(" .").replace(",", " ").split() if w not in ("a", "an", "the", "is", "to")
    ]
    words = words[2:] if words[:2] == ["picture", "of"] else words
    if len(words) == 3 and words[0] in COUNTS and words[1] in COLOURS and words[2] in _SINGULARS:
        return Scene(((words[1], _SINGULARS[words[2]]),) * COUNTS[words[0]])
    pairs = [(words[i], words[i + 1]) for i in (0, -2)] if len(words) >= 5 else []
    relation = " ".join(words[2:-2])
    known = relation in RELATIONS or (relation == "and" and len(set(pairs)) == 2)
    if known and all(colour in COLOURS and shape in SHAPES for colour, shape in pairs):
        return Scene(tuple(pairs), None if relation == "and" else relation)
    what = "neither two objects in a relation nor two, three or four alike"
    raise CaptionError(f"not a caption of a scene: {caption!r} names {what}", cure=GRAMMAR)
