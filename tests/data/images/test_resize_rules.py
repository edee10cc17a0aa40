import numpy as np
import pytest
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from PIL import Image

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data.images import resize_rules as pictures


def blank(height, width):
    return np.zeros((height, width, 3), np.uint8)


def test_the_preferred_sizes_equal_kontexts():
    assert (
        list(pictures.PREFERRED) == PREFERRED_KONTEXT_RESOLUTIONS and len(pictures.PREFERRED) == 17
    )


@pytest.mark.parametrize(
    ("height", "width"), [(37, 53), (100, 100), (900, 300), (30, 400), (1000, 1100)]
)
def test_an_image_is_resized_to_the_nearest_aspect_ratio(height, width):
    _, w, h = min((abs(width / height - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
    resized = pictures.RULES["preferred"](blank(height, width), 16)
    assert resized.shape == (h // 16 * 16, w // 16 * 16, 3)


def test_as_is_crops_less_than_a_cell():
    assert pictures.RULES["as_is"](blank(37, 53), 16).shape == (32, 48, 3)
    assert pictures.RULES["as_is"](blank(5, 40), 16).shape == (16, 32, 3)
    with pytest.raises(ConfigError, match="preferred, as_is"):
        pictures.rule_named("natural")


def test_resizing_equals_pillows_lanczos():
    pixels = np.random.default_rng(0).integers(0, 255, (37, 53, 3), np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((48, 32), Image.Resampling.LANCZOS))
    assert np.array_equal(pictures.resized(pixels, 32, 48), expected)
    assert pictures.image_tensor(pixels).shape == (1, 3, 37, 53)
    assert float(pictures.image_tensor(blank(2, 2)).max()) == -1.0


def test_the_natural_size_keeps_the_aspect_ratio_within_the_limit_of_the_network():
    assert pictures.natural_size(blank(37, 53), 16, 1024) == (32, 48)
    height, width = pictures.natural_size(blank(3000, 6000), 16, 1024)
    assert (
        (height % 16, width % 16) == (0, 0)
        and height * width <= 1024**2
        and abs(width / height - 2) < 0.05
    )


def test_a_mask_marks_pixels_that_are_at_least_half_white():
    mask = np.array([[0, 127, 128, 255]], np.uint8)
    assert pictures.mask_tensor(mask).flatten().tolist() == [0, 0, 1, 1]
