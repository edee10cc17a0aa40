"""Pixels are decoded as a viewer shows them, by the profile of any kind of file."""

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


def converted(image, profile):
    source_profile = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    srgb = ImageCms.createProfile("sRGB")
    return np.asarray(
        ImageCms.profileToProfile(image, source_profile, srgb, outputMode="RGB")
    ).astype(int)


def furthest(actual, expected):
    """In the middle of each colour, where lossy formats do not blur."""
    return np.abs(actual.astype(int) - expected)[8::16, 8::16].max()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_wide_gamut_profile_is_applied_in_every_format(kind):
    exact = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98}, "AVIF": {"quality": 100}}
    content = encoded(picture(), kind, icc_profile=wide_rgb(), **exact.get(kind, {}))
    expected = converted(picture(), wide_rgb())
    assert furthest(np.asarray(picture()), expected) > 20, "the profile changes nothing"
    assert furthest(decode(content), expected) <= 6


def test_a_grey_profile_is_applied_to_a_grey_image():
    content = encoded(Image.new("L", (8, 8), 64), icc_profile=linear_grey())
    assert decode(content)[0, 0].tolist() == pytest.approx([137] * 3, abs=3), (
        "a quarter of the light"
    )
    deep = Image.fromarray(np.full((8, 8), 64 << 8, np.uint16))
    assert np.array_equal(decode(encoded(deep, icc_profile=linear_grey())), decode(content))


def test_profiles_are_applied_to_transparent_palette_and_grey_images():
    expected = converted(picture(), wide_rgb())
    for mode in ("RGBA", "P"):
        image = picture().quantize(8) if mode == "P" else picture(mode)
        assert furthest(decode(encoded(image, icc_profile=wide_rgb())), expected) <= 3
    clear = picture("RGBA")
    clear.putalpha(0)
    assert decode(encoded(clear, icc_profile=wide_rgb())).min() == 255, (
        "the white below is no colour of the file"
    )


@pytest.mark.parametrize("broken", [b"", b"x" * 3_000_000, wide_rgb()[:200], linear_grey()])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_damaged_or_mismatched_profile_is_ignored(kind, broken):
    plain, with_it = encoded(picture(), kind), encoded(picture(), kind, icc_profile=broken)
    assert np.array_equal(decode(with_it), decode(plain))


def test_colour_profiles_are_ignored_in_masks():
    grey = Image.new("L", (8, 8), 128)
    assert decode_mask(encoded(grey, icc_profile=linear_grey())).max() == 128
