"""Input images of sampling: sizes and order are kept, unusable ones refused before encoding."""

import numpy as np
import pytest
from PIL import Image

from tests.denoisers.test_tinyflux import denoiser
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.inference.edit import References
from tinyflux_pl.inference.editing import editing
from tinyflux_pl.inference.pipeline import Pipeline
from tinyflux_pl.sampling.images import ImageSampler
from tinyflux_pl.sampling.loop import SamplerSettings


def picture(path, width, height):
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_references_keep_their_order_and_the_first_sets_the_size(tmp_path):
    files = [picture(tmp_path / "a" / "x.png", 33, 20), picture(tmp_path / "b" / "x.png", 16, 16)]
    edit = References(PixelFolding(2), files, "as_is", 4, (16, 16))
    assert edit.size == (20, 32) and [tuple(part.shape) for part in edit.latents] == [
        (1, 12, 10, 16),
        (1, 12, 8, 8),
    ]
    assert [name for name, _ in edit.hashes] == ["x.png", "x.png"] and edit.hashes[
        0
    ] != edit.hashes[1]


def test_a_large_reference_for_a_small_network_is_refused(tmp_path):
    """Its tokens would keep a machine busy for hours, or without memory."""
    files = [picture(tmp_path / "small.png", 64, 64), picture(tmp_path / "photo.png", 72, 64)]
    References(PixelFolding(2), files[:1], "as_is", 4, (16, 16))
    with pytest.raises(ConfigError, match="72 x 64 pixels beside pictures of 16 x 16") as error:
        References(PixelFolding(2), files, "as_is", 4, (16, 16))
    assert error.value.where.endswith("photo.png")


def test_a_released_network_accepts_references_larger_than_the_target(tmp_path):
    model = denoiser()
    pipeline = Pipeline(model, ImageSampler(PixelFolding(2), None, SamplerSettings(), (16, 16)), {})
    file = picture(tmp_path / "photo.png", 128, 64)
    with pytest.raises(ConfigError, match="128 x 64 pixels"):
        editing(pipeline, [file], keep_size=True)
    model.image_size = 64
    assert editing(pipeline, [file], keep_size=True).sampler.image_size == (16, 16)
    assert editing(pipeline, [file]).sampler.image_size == (64, 128)


@pytest.mark.parametrize(
    ("options", "inpaint", "what", "cure"),
    [
        ({"strength": 0.5}, 0, "no picture to begin from", "image=PICTURE"),
        ({"strength": 0.5, "image": "x.png"}, 256, "network inpaints", "leave strength= out"),
        (
            {"references": ["x.png"], "image": "x.png"},
            0,
            "cannot be combined with image= or mask=",
            "leave image=",
        ),
        ({"mask": "x.png"}, 0, "mask= without image=", "image=PICTURE"),
        ({"image": "x.png"}, 256, "no mask is given", "mask=PICTURE"),
    ],
)
def test_pictures_that_do_not_go_together_are_named(options, inpaint, what, cure):
    model = denoiser()
    model.inpaint_channels = inpaint
    pipeline = Pipeline(model, ImageSampler(PixelFolding(2), None, SamplerSettings(), (16, 16)), {})
    with pytest.raises(ConfigError, match=what) as error:
        editing(pipeline, **options)
    assert cure in error.value.cure
