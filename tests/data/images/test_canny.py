"""Edges of pictures, compared with scikit-image's."""

import numpy as np
from scipy.ndimage import binary_dilation
from skimage import data, feature

from tinyflux_pl.data.images.canny import SIGMA, canny_map, edges


def grey(pixels):
    return np.repeat(pixels[..., None], 3, axis=2)


def test_a_square_has_a_closed_outline_of_one_pixel():
    picture = np.full((32, 32, 3), 255, np.uint8)
    picture[8:24, 8:24] = 0
    outline = edges(picture)
    assert (
        48 <= outline.sum() <= 68 and outline[8:24].any(1).all() and outline[:, 8:24].any(0).all()
    )
    assert not outline[11:21, 11:21].any() and not outline[:6].any()


def test_an_image_without_edges_gives_an_empty_map():
    assert not canny_map(np.full((16, 20, 3), 90, np.uint8)).any()


def test_a_weak_edge_is_kept_only_if_connected_to_a_strong_one():
    picture = np.full((40, 40, 3), 100, np.uint8)
    picture[:, 20:] = 130  # weak: a step of 30
    assert not edges(picture).any()
    picture[:, 20:] = np.linspace(220, 130, 40)[:, None, None]  # strong above
    outline = edges(picture)
    assert outline[30:, 18:22].any(1).all()


def test_edges_of_a_photograph_equal_the_reference():
    """Within a pixel: thresholds and the blur's borders differ a little."""
    picture = data.camera()[::2, ::2]
    actual = edges(grey(picture))
    expected = feature.canny(picture / 255, sigma=SIGMA, low_threshold=0.2, high_threshold=0.6)
    near = np.ones((3, 3), bool)
    precision = (actual & binary_dilation(expected, near)).sum() / actual.sum()
    recall = (expected & binary_dilation(actual, near)).sum() / expected.sum()
    assert precision > 0.85 and recall > 0.85, (precision, recall)


def test_the_map_is_a_function_of_the_image():
    picture = data.astronaut()[:64, :64]
    first = canny_map(picture)
    assert first.shape == picture.shape and set(np.unique(first)) == {0, 255}
    assert np.array_equal(first, canny_map(picture.copy()))
