"""Pictures of shapes are read back at any size, and what is no shape is read as nothing."""

import numpy as np
import pytest
import torch

from tests.data.tasks.test_shapes import tensors
from tinyflux_pl.data.tasks.shapes.grammar import (
    RADII,
)
from tinyflux_pl.data.tasks.shapes.records import Shapes
from tinyflux_pl.data.tasks.shapes.render import (
    PALETTE,
    SHAPES,
    ShapeInstance,
    coverage,
    draw,
    moments,
)


@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_has_the_area_and_centroid_expected_by_the_verifier(shape):
    y, x = np.mgrid[-30:31, -30:31].astype(np.float64)
    cover = coverage(shape, x, y, 15.0)
    area, below = moments()[SHAPES.index(shape)]
    assert cover.sum() == pytest.approx(area * 15.0**2, rel=0.01)
    assert (cover * y).sum() / cover.sum() == pytest.approx(below * 15.0, abs=0.1)
    torch_cover = coverage(shape, torch.from_numpy(x), torch.from_numpy(y), torch.tensor(15.0))
    assert torch.allclose(torch_cover, torch.from_numpy(cover), atol=1e-5)


@pytest.mark.parametrize("size", [24, 64])
def test_the_verifier_reads_other_image_sizes(size):
    drawn = [Shapes("train", 200, size=size)[i] for i in range(200)]
    assert (
        Shapes().verifier().check(tensors(drawn), [r.caption for r in drawn])["all"].float().mean()
        >= 0.995
    )


def test_empty_noise_and_nan_images_are_read_as_none():
    reader = Shapes().verifier()
    noise = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for images in (torch.ones(2, 3, 32, 32), noise, torch.full((2, 3, 32, 32), torch.nan)):
        assert all(seen[claim] is None for seen in reader.read(images) for claim in reader.claims)
    assert not reader.check(noise[:1], ["a large red circle, top"])["all"].any()


def test_a_second_object_fails_the_check():
    red, blue = (np.asarray(PALETTE[colour]) for colour in ("red", "blue"))
    one = [ShapeInstance("circle", red, 9.0, 9.0, RADII["medium"])]
    pictures = [
        draw(objects, 32, 230.0)[0]
        for objects in (one, [*one, ShapeInstance("square", blue, 24.0, 24.0, 2.5)])
    ]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    assert Shapes().verifier().check(images, ["a medium red circle, top left"] * 2)[
        "all"
    ].tolist() == [True, False]
    assert [seen["count"] for seen in Shapes().verifier().read(images)] == [1, 2]


def test_irregular_blobs_are_not_read_as_shapes():
    order = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] + 0.5
    blobs = []
    for _ in range(200):
        centre, turn, waves = (
            order.uniform(10, 22, 2),
            order.uniform(0, 6.3, 5),
            order.normal(size=5) * 0.2,
        )
        angle, distance = (
            np.arctan2(y - centre[0], x - centre[1]),
            np.hypot(y - centre[0], x - centre[1]),
        )
        ripple = sum(waves[k] * np.cos((k + 2) * angle + turn[k]) for k in range(5))
        outline = order.uniform(4, 7) * (1 + ripple)
        blobs.append(0.8 - 1.6 * np.clip(0.5 - (distance - outline), 0, 1))
    images = torch.tensor(np.stack(blobs), dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
    assert sum(seen["shape"] is not None for seen in Shapes().verifier().read(images)) <= 10
