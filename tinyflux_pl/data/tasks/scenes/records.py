"""Several shapes a picture: two in a relation, or two to four that are alike."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data.tasks.scenes.grammar import (
    BASE,
    CELL_JITTER,
    CELLS,
    COUNTS,
    EDGE,
    GRAMMAR,
    GROUP_RADII,
    MAX_OFFSET,
    RADII,
    RELATIONS,
    SCENES_VERSION,
    SEPARATIONS,
    SHORT_CAPTIONS,
    Scene,
)
from tinyflux_pl.data.tasks.scenes.verifier import SceneVerifier
from tinyflux_pl.data.tasks.shapes.grammar import pairs_of
from tinyflux_pl.data.tasks.shapes.render import (
    BACKGROUNDS,
    DRAWING_VERSION,
    ShapeInstance,
    draw,
    jittered_colour,
)
from tinyflux_pl.data.tasks.task_records import Example, TaskRecords, balanced

Pair = tuple[str, str]  # colour, shape


class Scenes(TaskRecords):
    """Records of several shapes on a light background.

    `relation_share` of them show two objects that differ in colour and in shape, in one of four
    relations; the others two to four alike. Objects never touch. Splits and held-out pairs are
    those of Shapes: `held_out` has unseen pairs only. Attributes: objects, a list of [colour,
    shape], relation (or None) and count.
    """

    name = "scenes"
    versions: ClassVar[dict[str, int]] = {"drawing": DRAWING_VERSION, "scenes": SCENES_VERSION}
    prompt_splits = ("train", "held_out")
    min_size = BASE // 2
    grammar = GRAMMAR

    def __init__(
        self,
        split: str = "train",
        count: int = 4096,
        size: int = BASE,
        seed: int = 0,
        relation_share: float = 0.5,
    ) -> None:
        super().__init__(split, count, size, seed)
        if not 0 <= relation_share <= 1:
            what = f"relation_share {relation_share} is not a share"
            raise ConfigError(what, where="data", cure="a number from 0 (groups alone) to 1")
        self.relation_share = relation_share
        self.pairs = pairs_of(split)

    def example(self, index: int, seed: int) -> Example:
        """A random scene with random colours, places and caption."""
        generator = np.random.default_rng(seed)
        first = self.pairs[int(generator.integers(len(self.pairs)))]
        if generator.random() < self.relation_share:
            relation = list(RELATIONS)[int(generator.integers(4))]
            scene = related(first, self.pairs, relation, generator)
        else:
            scene = Scene((first,) * int(generator.integers(2, 5)))
        template = int(generator.integers(2))
        scale = self.size / BASE
        grey = float(generator.uniform(*BACKGROUNDS))
        centres = random_layout(scene, generator)
        instances = [
            ShapeInstance(
                shape,
                jittered_colour(colour, generator.random(3)),
                scale * x,
                scale * y,
                scale * radius,
            )
            for (colour, shape), (x, y, radius) in zip(scene.objects, centres, strict=True)
        ]
        image, mask = draw(instances, self.size, grey)
        omits_relation = scene.relation is not None and generator.random() < SHORT_CAPTIONS
        caption = (Scene(scene.objects) if omits_relation else scene).caption(template)
        attributes = {
            "objects": [list(pair) for pair in scene.objects],
            "relation": scene.relation,
            "count": len(scene.objects),
        }
        return Example(image, caption, mask, attributes)

    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the pixels and the captions; the share unless it is half."""
        share = {} if self.relation_share == 0.5 else {"relation_share": self.relation_share}
        return {**super().fingerprint(), **share}

    def balanced_captions(
        self, count: int, split: str, generator: np.random.Generator
    ) -> list[str]:
        """Captions of relations and groups by turns.

        Pairs, relations and numbers balanced within one.
        """
        pairs = pairs_of(split)
        related_count = (count + 1) // 2
        relations = iter(balanced(tuple(RELATIONS), related_count, generator))
        numbers = iter(balanced(tuple(COUNTS.values()), count - related_count, generator))
        firsts = balanced(pairs, count, generator)
        templates = balanced((0, 1), count, generator)
        captions = []
        for i, (pair, template) in enumerate(zip(firsts, templates, strict=True)):
            if i % 2:
                captions.append(Scene((pair,) * next(numbers)).caption(template))
            else:
                scene = related(pair, pairs, next(relations), generator)
                captions.append(scene.caption(template))
        return captions

    def verifier(self) -> SceneVerifier:
        """Compares pictures with these captions."""
        return SceneVerifier()


def related(
    first: Pair, pairs: tuple[Pair, ...], relation: str, generator: np.random.Generator
) -> Scene:
    """`first` in a relation to a random pair that shares neither its colour nor its shape."""
    candidates = [pair for pair in pairs if pair[0] != first[0] and pair[1] != first[1]]
    second = candidates[int(generator.integers(len(candidates)))]
    return Scene((first, second), relation)


def random_layout(scene: Scene, generator: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centre and radius (x, y, radius) of each object, in pixels of a picture of side BASE."""
    if scene.relation is None:
        radius = generator.uniform(*GROUP_RADII)
        cells = generator.permutation(9)[: len(scene.objects)]
        jitter = CELL_JITTER * (2 * generator.random((len(cells), 2)) - 1)
        return [
            (CELLS[int(c) % 3] + float(dx), CELLS[int(c) // 3] + float(dy), float(radius))
            for c, (dx, dy) in zip(cells, jitter, strict=True)
        ]
    direction = np.array(RELATIONS[scene.relation], dtype=np.float64)
    along = direction * generator.uniform(*SEPARATIONS)
    step = along + direction[::-1] * generator.uniform(-MAX_OFFSET, MAX_OFFSET)
    # both the second object and the first, one step away, stay inside
    low = np.maximum(EDGE, EDGE - step)
    high = np.minimum(BASE - EDGE, BASE - EDGE - step)
    second = generator.uniform(low, high)
    radii = generator.uniform(*RADII, size=2)
    centres = (second + step, second)
    return [(float(x), float(y), float(r)) for (x, y), r in zip(centres, radii, strict=True)]
