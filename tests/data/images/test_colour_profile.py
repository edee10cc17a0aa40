"""Pixels come out as a viewer shows them: by the profile in the file, whatever kind of file it
is.
"""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.data.images.profiles import linear_grey, wide_rgb
from tinyflux_pl.data.images.decode import decode, decode_mask

COLOURS = np.array([[[30, 200, 60], [200, 40, 40], [60, 90, 200], [128, 128, 128]]], np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(mode="RGB"):
    return Image.fromarray(COLOURS.repeat(16, 0).repeat(16, 1)).convert(mode)


def shown(image, profile):
    given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    srgb = ImageCms.createProfile("sRGB")
    return np.asarray(ImageCms.profileToProfile(image, given, srgb, outputMode="RGB")).astype(int)


def furthest(found, expected):
    """In the middle of each colour, where lossy formats do not blur."""
    return np.abs(found.astype(int) - expected)[8::16, 8::16].max()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_wide_profile_is_followed_in_every_format(kind):
    exact = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98}, "AVIF": {"quality": 100}}
    content = encoded(picture(), kind, icc_profile=wide_rgb(), **exact.get(kind, {}))
    expected = shown(picture(), wide_rgb())
    assert furthest(np.asarray(picture()), expected) > 20, "the profile changes nothing"
    assert furthest(decode(content), expected) <= 6


def test_a_grey_picture_follows_a_grey_profile():
    content = encoded(Image.new("L", (8, 8), 64), icc_profile=linear_grey())
    assert decode(content)[0, 0].tolist() == pytest.approx([137] * 3, abs=3), (
        "a quarter of the light"
    )
    deep = Image.fromarray(np.full((8, 8), 64 << 8, np.uint16))
    assert np.array_equal(decode(encoded(deep, icc_profile=linear_grey())), decode(content))


def test_transparent_palette_and_grey_pictures_follow_the_profile_too():
    expected = shown(picture(), wide_rgb())
    for mode in ("RGBA", "P"):
        image = picture().quantize(8) if mode == "P" else picture(mode)
        assert furthest(decode(encoded(image, icc_profile=wide_rgb())), expected) <= 3
    clear = picture("RGBA")
    clear.putalpha(0)
    assert decode(encoded(clear, icc_profile=wide_rgb())).min() == 255, (
        "the white below is no colour of the file"
    )


@pytest.mark.parametrize("odd", [b"", b"x" * 3_000_000, wide_rgb()[:200], linear_grey()])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_profile_that_is_damaged_or_of_other_pixels_is_left_out(kind, odd):
    plain, with_it = encoded(picture(), kind), encoded(picture(), kind, icc_profile=odd)
    assert np.array_equal(decode(with_it), decode(plain))


def test_a_mask_is_no_colour():
    grey = Image.new("L", (8, 8), 128)
    assert decode_mask(encoded(grey, icc_profile=linear_grey())).max() == 128
