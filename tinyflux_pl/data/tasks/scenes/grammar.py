"""The grammar of scenes: relations and counts of objects, captions, and their parser."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.data.tasks.shapes.grammar import article
from tinyflux_pl.data.tasks.shapes.render import COLOURS, SHAPES

# raise it whenever scenes are composed differently; DRAWING_VERSION is for shapes
SCENES_VERSION = 3
BASE = 48  # the side that all lengths below refer to; other sizes scale them
# (x, y), y down
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
COUNTS = {"two": 2, "three": 3, "four": 4}
RADII = (5.0, 6.4)
SEPARATIONS = (18.0, 23.0)  # pixels between two centres, along the relation
MAX_OFFSET = 4.0  # pixels between two centres, across the relation
EDGE = 9.0  # pixels from a centre to the picture's edge
CELLS = (8.2, 24.0, 39.8)  # centres of the cells of a group, one object in each
CELL_JITTER = 0.6
GROUP_RADII = (4.4, 5.0)
SHORT_CAPTIONS = 0.15  # share of captions of two objects that state no relation

FILLERS = ("a", "an", "the", "is", "to")
_PLURALS = {shape: "crosses" if shape == "cross" else shape + "s" for shape in SHAPES}
_SINGULARS = {
    **{plural: shape for shape, plural in _PLURALS.items()},
    **{shape: shape for shape in SHAPES},
}
_TEMPLATES = ("{first} {relation} {second}", "{first} is {relation} {second}")
_GROUP_TEMPLATES = ("{number} {colour} {shapes}", "a picture of {number} {colour} {shapes}")
_LONG_RELATIONS = {"left of": "to the left of", "right of": "to the right of"}
GRAMMAR = (
    'say "a red circle left of a blue square" (relations: ' + ", ".join(RELATIONS)
    + '), "a red circle and a blue square", or "three green triangles" ('
    + ", ".join(COUNTS) + "); colours: " + ", ".join(COLOURS) + "; shapes: " + ", ".join(SHAPES)
)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """The (colour, shape) objects of an image and the relation of the first to the second.

    The relation may be None. Without a relation they are alike, or two that may stand anywhere.
    """

    objects: tuple[tuple[str, str], ...]
    relation: str | None = None

    def caption(self, template: int) -> str:
        """The scene in words; even and odd templates differ in form."""
        colour, shape = self.objects[0]
        if self.relation is None and len(set(self.objects)) == 2:
            return " and ".join(f"{article(c)} {s}" for c, s in self.objects)
        if self.relation is None:
            number = list(COUNTS)[len(self.objects) - 2]
            form = _GROUP_TEMPLATES[template % 2]
            return form.format(number=number, colour=colour, shapes=_PLURALS[shape])
        first, second = (f"{article(c)} {s}" for c, s in self.objects)
        relation = self.relation
        if template % 2:
            relation = _LONG_RELATIONS.get(relation, relation)
        return _TEMPLATES[template % 2].format(first=first, second=second, relation=relation)


@lru_cache(maxsize=65536)
def parse(caption: str) -> Scene:
    """The scene that a caption describes.

    CaptionError, with the grammar, if it cannot be parsed.
    """
    words = caption.lower().rstrip(" .").replace(",", " ").split()
    words = [word for word in words if word not in FILLERS]
    words = words[2:] if words[:2] == ["picture", "of"] else words
    if len(words) == 3 and words[0] in COUNTS and words[1] in COLOURS and words[2] in _SINGULARS:
        return Scene(((words[1], _SINGULARS[words[2]]),) * COUNTS[words[0]])
    pairs = [(words[i], words[i + 1]) for i in (0, -2)] if len(words) >= 5 else []
    relation = " ".join(words[2:-2])
    is_relation = relation in RELATIONS or (relation == "and" and len(set(pairs)) == 2)
    if is_relation and all(colour in COLOURS and shape in SHAPES for colour, shape in pairs):
        return Scene(tuple(pairs), None if relation == "and" else relation)
    reason = "neither two objects in a relation nor two, three or four alike"
    raise CaptionError(f"not a caption of a scene: {caption!r} names {reason}", cure=GRAMMAR)
