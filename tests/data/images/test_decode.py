"""Hostile or odd files are named and refused; sound ones come out upright, RGB and unsquashed."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from tinyflux_pl.core.errors import ConfigError, ImageError
from tinyflux_pl.data.images import decode as image_decoding
from tinyflux_pl.data.images import pixels as image_pixels
from tinyflux_pl.data.images.decode import decode, decode_mask, inspect
from tinyflux_pl.data.images.fit import fit, fit_mask


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width: int = 40, height: int = 30) -> Image.Image:
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = (
        np.arange(width) * 255 // width,
        np.arange(height)[:, None] * 255 // height,
    )
    return Image.fromarray(ramp)


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + body
        + struct.pack(">I", zlib.crc32(body))
        + b"\0\0\0\0IDAT"
    )


def test_a_file_beyond_the_size_limit_is_not_read(tmp_path, monkeypatch):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(image_decoding.MAX_BYTES + 1)
    monkeypatch.setattr(
        image_decoding.png_chunks, "without_text", lambda content: pytest.fail("it was read")
    )
    with pytest.raises(ImageError, match=r"134,217,729 bytes, more than 134,217,728"):
        decode(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("PNG", 0), ("BMP", 0), ("JPEG", 12), ("WEBP", 24)]
)
def test_every_format_is_read_from_bytes_and_from_a_file(tmp_path, kind, tolerance):
    content = encoded(picture(), kind)
    (tmp_path / "a.bin").write_bytes(content)
    for source in (content, tmp_path / "a.bin", str(tmp_path / "a.bin")):
        pixels = decode(source)
        assert pixels.dtype == np.uint8 and pixels.shape == (30, 40, 3)
        assert np.abs(pixels.astype(int) - np.asarray(picture()).astype(int)).max() <= tolerance
    assert inspect(content) == (40, 30)


HOSTILE = {
    "empty": (b"", "empty"),
    "html": (b"\n<!DOCTYPE html><html>404</html>", "web page"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    "text": (b"hello", "not a readable image"),
    "bomb of 4 gigapixels": (png_header(65535, 65535), "pixels"),
    "bomb under Pillow's own limit": (
        png_header(9000, 9000),
        "81,000,000 pixels are more than 33,554,432",
    ),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a readable image"),
    "header alone": (png_header(8, 8), "truncated or damaged"),
    "floating point": (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "F pixels"),
    "jpeg start": (b"\xff\xd8\xff\xe0", "not a readable|truncated"),
    "gif start": (b"GIF89a", "not a readable|truncated"),
    "zeros": (bytes(4096), "not a readable image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_incomplete_or_oversized_images_are_refused_by_name(tmp_path, name):
    content, why = HOSTILE[name]
    path = tmp_path / "odd name.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=why) as caught:
        decode(path)
    assert str(path) in str(caught.value) and "0x" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_files_never_crash_and_truncated_ones_are_refused(kind):
    content = encoded(picture(200, 150), kind)
    for keep in range(0, len(content) - 40, len(content) // 16):
        with pytest.raises(ImageError):
            decode(content[:keep])
    drawn = random.Random(0)
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(4):
            damaged[drawn.randrange(len(damaged))] = drawn.randrange(256)
        try:
            assert decode(bytes(damaged)).ndim == 3  # lossy formats may decode altered bytes
        except ImageError as error:
            assert error.where == "(bytes)"


def test_a_png_with_a_wrong_checksum_is_refused():
    content = bytearray(encoded(picture()))
    content[content.index(b"IDAT") + 4 + 10] ^= 1
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode(bytes(content))
    png = bytearray(encoded(picture()))
    png[png.index(b"IEND") - 5] ^= 1  # the checksum itself: the pixels decode as they are
    with pytest.raises(ImageError, match="truncated or damaged: broken PNG file"):
        decode(bytes(png))


@pytest.mark.parametrize("side", [5000, 13000])
def test_a_gif_of_eighty_bytes_allocates_nothing(side):
    """Pillow gives a GIF its canvas while it reads the header, at up to 179 million pixels."""
    size, before = struct.pack("<HH", side, side), Image.MAX_IMAGE_PIXELS
    frame = b"\x21\xf9\x04\x09\0\0\0\0,\0\0\0\0" + size + b"\0\x02\x02\x4c\x01\0;"
    with pytest.raises(ImageError, match="more than 90,000"):
        inspect(b"GIF89a" + size + b"\xf0\0\0" + bytes(6) + frame, max_pixels=90_000)
    assert before == Image.MAX_IMAGE_PIXELS, "Pillow's own limit is what it was"


def test_the_pixel_limit_of_webp_is_halved():
    content = encoded(picture(), "WEBP")
    assert decode(content, max_pixels=2400).shape == (30, 40, 3)
    with pytest.raises(ImageError, match=r"40 x 30 is more than 1,199 pixels"):
        decode(content, max_pixels=2399)


def test_decoding_in_strips_equals_decoding_at_once(monkeypatch):
    for kind in ("PNG", "JPEG", "WEBP"):
        content = encoded(picture(97, 61).convert("RGBA" if kind == "PNG" else "RGB"), kind)
        at_once = decode(content)
        monkeypatch.setattr(image_pixels, "STRIP", 97 * 7 + 5)
        assert np.array_equal(decode(content), at_once)
        monkeypatch.undo()


def test_folders_and_missing_files_are_image_errors(tmp_path):
    for path in (tmp_path, tmp_path / "none.png"):
        with pytest.raises(ImageError, match=r"regular file|cannot be read"):
            decode(path)


def test_a_configured_pixel_limit_is_enforced():
    with pytest.raises(ImageError, match="40 x 30"):
        decode(encoded(picture()), max_pixels=1199)
    assert decode(encoded(picture()), max_pixels=1200).shape == (30, 40, 3)


@pytest.mark.parametrize("orientation", range(10))
def test_exif_rotation_is_applied_as_pillow_does(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture(), "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert (
        np.array_equal(decode(content), np.asarray(upright)) and decode(content).flags.c_contiguous
    )
    assert orientation != 6 or np.array_equal(upright, np.rot90(np.asarray(picture()), -1))


def test_alpha_is_composited_on_white_and_animations_give_their_first_frame():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert decode(encoded(clear)).min() == 255 and decode(encoded(half))[0, 0, 0] in (127, 128)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([9, 9, 9, 10, 20, 30])
    assert decode(encoded(palette))[0, 0].tolist() == [10, 20, 30]
    assert decode(encoded(palette, transparency=1))[0, 0].tolist() == [255, 255, 255]
    assert decode(encoded(Image.new("LA", (4, 4), (7, 0)))).min() == 255
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(moving)[0, 0].tolist() == [255, 0, 0]


def test_grey_sixteen_bit_and_cmyk_are_converted():
    deep = Image.fromarray(np.full((4, 4), 0x8034, np.uint16))
    assert decode(encoded(deep))[0, 0].tolist() == [0x80] * 3
    assert decode(encoded(Image.new("1", (4, 4), 1))).min() == 255
    assert decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))[
        4, 4
    ].tolist() == pytest.approx([255, 0, 0], abs=12)
    assert decode_mask(encoded(Image.new("L", (5, 4), 200))).tolist() == [[200] * 5] * 4


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (1, 500), (500, 1), (16, 16), (15, 16)])
@pytest.mark.parametrize("size", [16, (8, 24)])
def test_fit_gives_the_requested_size(mode, shape, size):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert fit(image, size, mode).shape == ((16, 16, 3) if size == 16 else (8, 24, 3))


def test_fit_keeps_aspect_ratio_and_centre():
    disc = np.full((60, 120, 3), 255, np.uint8)
    y, x = np.mgrid[:60, :120]
    disc[(y - 29.5) ** 2 + (x - 59.5) ** 2 < 20**2] = 0
    for mode, radius in (("crop", 20 * 32 / 60), ("pad", 20 * 32 / 120)):
        dark = fit(disc, 32, mode)[..., 0] < 128
        rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
        assert len(rows) == len(columns) == pytest.approx(2 * radius, abs=1.1)
        assert rows.mean() == columns.mean() == 15.5


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_unmarked_in_a_mask(mode):
    """As an eraser leaves it: white brushed onto nothing."""
    brushed = Image.new(mode, (4, 1), (255,) * (len(mode) - 1) + (0,))
    brushed.putpixel((0, 0), (255,) * len(mode))
    assert decode_mask(encoded(brushed)).tolist() == [[255, 0, 0, 0]]
    assert decode(encoded(brushed)).min() == 255  # and shows white paper in a picture


def test_a_mask_is_fitted_like_its_image():
    mask = np.zeros((30, 60), np.uint8)
    mask[:, 15:45] = 255
    assert fit_mask(mask, 10).min() == 1.0 and fit_mask(mask, 10, "pad")[0].max() == 0.0
    with pytest.raises(ConfigError, match="squash"):
        fit(mask, 10, "squash")


def test_truncated_images_are_refused_even_if_pillow_is_set_to_load_them(monkeypatch):
    """Another library may set Pillow's global switch; decoding then refuses to work at all."""
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (1, 2, 3)).save(buffer, "PNG")
    for content in (buffer.getvalue(), buffer.getvalue()[:-20]):
        with pytest.raises(ImageError, match="truncated"):
            decode(content)
