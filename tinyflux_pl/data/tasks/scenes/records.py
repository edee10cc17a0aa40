"""Several shapes a picture: two that stand in a relation, or two to four that are alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinyflux_pl.core import fingerprint as fingerprints
from tinyflux_pl.core import rng
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Record
from tinyflux_pl.data.records.record_source import RecordSource
from tinyflux_pl.data.tasks.balanced import balanced
from tinyflux_pl.data.tasks.scenes.grammar import (
    APART,
    ASIDE,
    BASE,
    CELL_JITTER,
    CELLS,
    COUNTS,
    EDGE,
    GRAMMAR,
    GROUP_RADII,
    RADII,
    RELATIONS,
    SCENES_VERSION,
    SHORT_CAPTIONS,
    Scene,
)
from tinyflux_pl.data.tasks.shapes.grammar import pairs_of
from tinyflux_pl.data.tasks.shapes.render import BACKGROUNDS, DRAWING_VERSION, Drawn, draw, jittered_colour

if TYPE_CHECKING:
    from tinyflux_pl.data.tasks.scenes.verifier import SceneReader


class Scenes(RecordSource):
    """Records of several shapes on a light ground; each depends on (seed, split, index) alone.

    Half show two objects that differ in colour and in shape, in one of four relations; half show two to four
    alike. Objects never touch. Splits and held-out pairs are those of Shapes: `held_out` has unseen pairs only.
    Attributes: objects, a list of [colour, shape], relation (or None) and count.
    """

    name = "scenes"
    prompt_splits = ("train", "held_out")
    grammar = GRAMMAR

    def __init__(self, split: str = "train", count: int = 4096, size: int = BASE, seed: int = 0) -> None:
        self.pairs = pairs_of(split)
        if count < 1 or size < BASE:
            raise ConfigError(f"scenes: count {count}, size {size}", where="data", cure="count >= 1 and size >= 48")
        self.split, self.count, self.size, self.seed = split, count, size, seed
        self.image_shape = (size, size, 3)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self.count:
            raise IndexError(index)
        order = np.random.default_rng(rng.derive(self.seed, f"scenes/{self.split}", index))
        first = self.pairs[int(order.integers(len(self.pairs)))]
        if order.random() < 0.5:
            scene = related(first, self.pairs, list(RELATIONS)[int(order.integers(4))], order)
        else:
            scene = Scene((first,) * int(order.integers(2, 5)))
        template = int(order.integers(2))
        scale, grey = self.size / BASE, float(order.uniform(*BACKGROUNDS))
        drawn = [
            Drawn(shape, jittered_colour(colour, order.random(3)), scale * x, scale * y, scale * radius)
            for (colour, shape), (x, y, radius) in zip(scene.objects, placed(scene, order), strict=True)
        ]
        image, mask = draw(drawn, self.size, grey)
        unrelated = scene.relation is not None and order.random() < SHORT_CAPTIONS
        caption = (Scene(scene.objects) if unrelated else scene).caption(template)
        attributes = {
            "objects": [list(pair) for pair in scene.objects],
            "relation": scene.relation,
            "count": len(scene.objects),
        }
        identity = fingerprints.sample_id(image.tobytes(), caption)
        return Record(image, caption, identity, mask, f"scenes/{self.split}/{index}", attributes)

    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the pixels and the captions."""
        keys = ("name", "split", "count", "size", "seed")
        return {"drawing": DRAWING_VERSION, "scenes": SCENES_VERSION, **{key: getattr(self, key) for key in keys}}

    def prompts(self, count: int, split: str = "train", seed: int = 0) -> list[str]:
        """`count` captions, relations and groups by turns; pairs, relations and numbers balanced within one."""
        order = np.random.default_rng(rng.derive(seed, f"scenes/prompts/{split}"))
        pairs = pairs_of(split)
        related_count = (count + 1) // 2
        kinds = iter(balanced(tuple(RELATIONS), related_count, order))
        numbers = iter(balanced(tuple(COUNTS.values()), count - related_count, order))
        captions = []
        for i, (pair, template) in enumerate(
            zip(balanced(pairs, count, order), balanced((0, 1), count, order), strict=True)
        ):
            scene = Scene((pair,) * next(numbers)) if i % 2 else related(pair, pairs, next(kinds), order)
            captions.append(scene.caption(template))
        return captions

    def verifier(self) -> SceneReader:
        """The reader that checks pictures against these captions."""
        from tinyflux_pl.data.tasks.scenes.verifier import SceneReader

        return SceneReader()


def related(
    first: tuple[str, str], pairs: tuple[tuple[str, str], ...], relation: str, order: np.random.Generator
) -> Scene:
    """`first` in a relation to a random pair that shares neither its colour nor its shape."""
    others = [pair for pair in pairs if pair[0] != first[0] and pair[1] != first[1]]
    return Scene((first, others[int(order.integers(len(others)))]), relation)


def placed(scene: Scene, order: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centre and radius (x, y, radius) of each object, in pixels of a picture of side BASE."""
    if scene.relation is None:
        radius = order.uniform(*GROUP_RADII)
        cells = order.permutation(9)[: len(scene.objects)]
        jitter = CELL_JITTER * (2 * order.random((len(cells), 2)) - 1)
        return [
            (CELLS[int(c) % 3] + float(dx), CELLS[int(c) // 3] + float(dy), float(radius))
            for c, (dx, dy) in zip(cells, jitter, strict=True)
        ]
    direction = np.array(RELATIONS[scene.relation], dtype=np.float64)
    step = direction * order.uniform(*APART) + direction[::-1] * order.uniform(-ASIDE, ASIDE)
    low = np.maximum(EDGE, EDGE - step)  # both the second object and the first, one step on, stay inside
    high = np.minimum(BASE - EDGE, BASE - EDGE - step)
    second = order.uniform(low, high)
    radii = order.uniform(*RADII, size=2)
    return [(float(x), float(y), float(r)) for (x, y), r in zip((second + step, second), radii, strict=True)]
