"""A mask marks its visible area or is refused: labels, 16 bits, single colours, alpha."""

import io

import numpy as np
import pytest
from PIL import Image

from tinyflux_pl.core.errors import ImageError
from tinyflux_pl.data.images.decode import decode_mask

EXPECTED = np.zeros((24, 32), bool)
EXPECTED[6:18, 8:20] = True


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def painted(colour, ground, mode="RGBA"):
    image = Image.new(mode, (32, 24), ground)
    image.paste(colour, (8, 6, 20, 18))
    return image


def palette(foreground):
    image = Image.fromarray(EXPECTED.astype(np.uint8))
    image.putpalette([0, 0, 0, *foreground])
    return image


SAME = {
    "white on black": Image.fromarray(np.where(EXPECTED, 255, 0).astype(np.uint8)),
    "labels 0 and 1": Image.fromarray(EXPECTED.astype(np.uint8)),
    "labels 0 and 1 in colour": Image.fromarray(EXPECTED.astype(np.uint8)).convert("RGB"),
    "one bit": Image.fromarray(EXPECTED),
    "16 bits": Image.fromarray(np.where(EXPECTED, 65535, 0).astype(np.uint16)),
    "labels 0 and 1 in 16 bits": Image.fromarray(EXPECTED.astype(np.uint16)),
    "0 to 255 in 16 bits": Image.fromarray(np.where(EXPECTED, 255, 0).astype(np.uint16)),
    "a red layer on nothing": painted((255, 0, 0, 255), (0, 0, 0, 0)),
    "a red layer on clear white": painted((255, 0, 0, 255), (255, 255, 255, 0)),
    "red on black": painted((255, 0, 0), (0, 0, 0), "RGB"),
    "a palette of black and dark red": palette((128, 0, 0)),
    "a palette of black and near black": palette((1, 1, 1)),
    "a white layer on nothing": painted((255, 255, 255, 255), (0, 0, 0, 0)),
}


@pytest.mark.parametrize("name", SAME)
def test_every_supported_mask_encoding_marks_its_area(name):
    coverage = decode_mask(encoded(SAME[name]))
    assert np.array_equal(coverage, np.where(EXPECTED, 255, 0)), name


def test_a_tiff_of_sixteen_bits_is_read_like_a_png():
    for name in ("labels 0 and 1 in 16 bits", "16 bits"):
        assert np.array_equal(decode_mask(encoded(SAME[name], "TIFF")) > 127, EXPECTED)


REFUSED = {
    "labels of four things": Image.fromarray((EXPECTED * 3).astype(np.uint8)),
    "labels in 16 bits": Image.fromarray((EXPECTED * 40).astype(np.uint16)),
    "a map in colours": painted((0, 128, 0), (128, 0, 0), "RGB"),
    "red on white": painted((255, 0, 0), (255, 255, 255), "RGB"),
    "black on nothing": painted((0, 0, 0, 255), (0, 0, 0, 0)),
    "a gap in black": painted((0, 0, 0, 0), (0, 0, 0, 255)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_ambiguous_mask_is_refused(name):
    with pytest.raises(ImageError, match="a mask") as caught:
        decode_mask(encoded(REFUSED[name]), name="m.png")
    assert caught.value.where == "m.png" and "white where it holds" in caught.value.cure


def test_soft_mask_edges_are_kept_and_an_empty_mask_is_empty():
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (24, 1)))
    assert np.array_equal(decode_mask(encoded(ramp)), np.asarray(ramp))
    red = Image.merge("RGB", [ramp, Image.new("L", ramp.size), Image.new("L", ramp.size)])
    assert np.abs(decode_mask(encoded(red)).astype(int) - np.asarray(ramp)).max() <= 8
    for empty in (
        Image.new("L", (32, 24)),
        Image.new("RGBA", (32, 24)),
        Image.new("I;16", (32, 24)),
    ):
        assert decode_mask(encoded(empty)).max() == 0


def test_a_lossy_mask_of_one_colour_is_read():
    coverage = decode_mask(encoded(SAME["red on black"], "JPEG", quality=95))
    assert (np.abs(coverage.astype(int) - 255 * EXPECTED) < 60).mean() > 0.95
