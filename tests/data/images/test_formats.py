"""Every documented format is read within bounds; metadata does not change the pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from tests.faults.hostile_images import chunk
from tinyflux_pl.core.errors import ImageError
from tinyflux_pl.data.images import formats as image_formats
from tinyflux_pl.data.images import jxl_header
from tinyflux_pl.data.images.decode import decode, decode_mask, inspect


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width=40, height=30):
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = (
        np.arange(width) * 255 // width,
        np.arange(height)[:, None] * 255 // height,
    )
    return Image.fromarray(ramp)


def png(depth, kind, rows, *extra, width=4, height=1):
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(rows))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + b"".join(extra) + body + chunk(b"IEND", b"")


def tiled(side):
    """A grey TIFF of 8 x 8 pixels in one tile."""
    packed = zlib.compress(bytes([90]) * min(side, 64) ** 2)
    tags = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}
    tags |= {324: 8 + 2 + 12 * 10 + 4, 325: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed


@pytest.mark.parametrize(("kind", "tolerance"), [("TIFF", 0), ("GIF", 40), ("AVIF", 24)])
def test_tiff_gif_and_avif_are_read(kind, tolerance):
    pixels = decode(encoded(picture(), kind))
    assert np.abs(pixels.astype(int) - np.asarray(picture()).astype(int)).max() <= tolerance


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "AVIF", "WEBP", "PNG"])
def test_the_first_of_several_frames_is_used(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert decode(content)[8, 8].tolist() == pytest.approx([255, 0, 0], abs=8)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "AVIF"])
def test_image_size_is_checked_from_the_header_before_decoding(kind, monkeypatch):
    content = encoded(picture(), kind)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match="pixels") as caught:
        decode(content, max_pixels=299)
    assert "data.max_pixels" in caught.value.cure


def test_a_tiff_with_oversized_tiles_is_refused():
    """The decoder allocates complete tiles, however small the image."""
    assert decode(tiled(16))[0, 0].tolist() == [90] * 3
    with pytest.raises(ImageError, match="65536 x 65536 is more than"):
        decode(tiled(1 << 16))


def test_the_pixel_limit_of_rotated_tiff_is_halved():
    """Pillow rotates while loading, next to the first copy."""
    content = encoded(Image.new("RGB", (20, 10)), "TIFF", tiffinfo={274: 6})
    assert decode(content, max_pixels=400).shape == (20, 10, 3)
    with pytest.raises(ImageError, match="is more than 199 pixels"):
        decode(content, max_pixels=399)
    assert decode(encoded(Image.new("RGB", (20, 10)), "TIFF"), max_pixels=200).shape == (10, 20, 3)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_tells_the_upright_size(kind, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    content = encoded(picture(40, 30), kind, exif=exif)
    height, width, _ = decode(content).shape
    assert inspect(content) == (width, height) == ((30, 40) if orientation > 4 else (40, 30))


def test_a_bitmap_without_a_file_header_is_read(tmp_path):
    picture().save(tmp_path / "a.dib")
    assert np.array_equal(decode(tmp_path / "a.dib"), np.asarray(picture()))


def test_a_tiff_whose_white_is_not_known_is_refused():
    wide = Image.fromarray(np.full((4, 4), 200, np.int32))
    with pytest.raises(ImageError, match="32-bit or signed pixels"):
        decode(encoded(wide, "TIFF"))
    assert decode_mask(encoded(wide.point(lambda value: value * 0 + 1), "TIFF")).all()
    negative = encoded(Image.fromarray(np.full((4, 4), 200, np.uint16)), "TIFF")
    tag = struct.pack("<HHII", 262, 3, 1, 1)
    assert tag in negative and decode(negative).shape == (4, 4, 3)
    for read in (decode, decode_mask):
        with pytest.raises(ImageError, match="of which 0 is white"):
            read(negative.replace(tag, struct.pack("<HHII", 262, 3, 1, 0)))


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "AVIF"])
def test_truncated_files_are_refused(kind):
    content = encoded(Image.effect_noise((64, 64), 90).convert("RGB"), kind)
    for share in (0.2, 0.5, 0.8):
        with pytest.raises(ImageError):
            decode(content[: int(len(content) * share)])


def test_sixteen_bit_transparency_is_composited_on_white():
    grey = struct.pack(">4H", 0x1234, 0x8000, 0x1234, 0x12FF)
    key = chunk(b"tRNS", struct.pack(">H", 0x1234))
    values = decode(png(16, 0, b"\0" + grey, key))[0, :, 0].tolist()
    assert values == [255, 0x80, 255, 0x12], "0x12ff is another grey than the clear one"
    colour = b"".join(struct.pack(">3H", *each) for each in [(0x1200, 0, 0), (0x9000,) * 3] * 2)
    key = chunk(b"tRNS", struct.pack(">3H", 0x1200, 0, 0))
    assert decode(png(16, 2, b"\0" + colour, key))[0, :, 0].tolist() == [255, 0x90] * 2
    pairs = struct.pack(">8H", 7, 0, 7, 65535, 0x8000, 0, 0x8000, 65535)
    assert decode(png(16, 4, b"\0" + pairs))[0, :, 0].tolist() == [255, 0, 255, 0x80]


@pytest.mark.parametrize(
    ("depth", "row", "pixel"), [(1, 0x50, [0, 255] * 2), (2, 0x1B, [0, 85, 170, 255])]
)
def test_transparent_grey_of_few_bits_is_composited_on_white(depth, row, pixel):
    for value in range(2**depth):
        key = chunk(b"tRNS", struct.pack(">H", value))
        expected = [255 if grey == value * 255 // (2**depth - 1) else grey for grey in pixel]
        assert decode(png(depth, 0, bytes([0, row]), key))[0, :, 0].tolist() == expected


def text(size, packed):
    notes = PngImagePlugin.PngInfo()
    notes.add_text("workflow", "a" * size, zip=packed)
    notes.add_itxt("prompt", "b" * size, zip=packed)
    return {"pnginfo": notes}


METADATA = {
    "long packed text": text(1_200_000, True),
    "long text": text(5_000_000, False),
    "a long profile": {"icc_profile": b"\0" * 1_500_000},
    "odd EXIF": {"exif": b"garbage"},
    "odd EXIF that begins well": {"exif": b"Exif\0\0MM\0*\xff\xff\xff\xff"},
}


@pytest.mark.parametrize("name", METADATA)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_metadata_does_not_change_the_pixels(kind, name):
    if (kind != "PNG" and "text" in name) or (kind == "TIFF" and "EXIF" in name):
        pytest.skip("this format has none such")
    if kind == "JPEG" and "EXIF" not in name:
        pytest.skip("tests/data/images/test_colour_profile.py")
    content = encoded(picture(), kind, **METADATA[name])
    assert np.array_equal(decode(content), decode(encoded(picture(), kind)))
    assert inspect(content) == (40, 30)


def test_an_orientation_in_xmp_text_is_applied():
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    turned = decode(encoded(picture(), pnginfo=notes))
    assert np.array_equal(turned, np.rot90(np.asarray(picture()), -1))


def turning(kind):
    """A chunk that turns its picture by 90 degrees."""
    if kind == "xmp":
        text = b'<x tiff:Orientation="6"/>'
        return chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + text)
    exif = Image.Exif()
    exif[0x0112] = 6
    return chunk(b"eXIf", exif.tobytes()[6:])


@pytest.mark.parametrize("kind", ["exif", "xmp"])
def test_the_size_of_a_png_follows_an_orientation_behind_its_pixels(kind, monkeypatch):
    plain = encoded(picture())
    end = plain.rindex(b"IEND") - 4
    content = plain[:end] + turning(kind) + plain[end:]
    upright = decode(content)
    assert np.array_equal(upright, np.rot90(np.asarray(picture()), -1))
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was decoded"))
    assert inspect(content) == (30, 40) == upright.shape[1::-1]
    assert inspect(plain) == (40, 30)


@pytest.mark.parametrize("kept", [-4, -13, -30])
def test_the_size_of_a_cut_png_is_read_as_far_as_its_header_goes(kept):
    content = encoded(picture())[:kept]
    assert inspect(content) == (40, 30)


def test_the_later_frames_of_an_animation_turn_nothing():
    frames = encoded(picture(), save_all=True, append_images=[picture().rotate(180)], duration=9)
    end = frames.rindex(b"IEND") - 4
    content = frames[:end] + turning("exif") + frames[end:]
    assert inspect(content) == decode(content).shape[1::-1]


def test_a_format_of_the_optional_extra_is_refused_with_its_cure(monkeypatch):
    monkeypatch.setattr(image_formats, "formats", lambda: ("PNG",))
    for start, name in (
        (b"\0\0\0\x18ftypheic", "HEIF"),
        (jxl_header.CONTAINER, "JXL"),
        (b"\xff\x0a", "JXL"),
    ):
        with pytest.raises(ImageError, match=f"a {name} picture") as caught:
            decode(start + bytes(64))
        assert "[formats]" in caught.value.cure


@pytest.mark.parametrize(("kind", "package"), [("HEIF", "pillow_heif"), ("JXL", "pillow_jxl")])
def test_heic_and_jpeg_xl_are_read_with_the_extra(kind, package, monkeypatch):
    pytest.importorskip(package)
    assert kind in image_formats.formats()
    content = encoded(picture(400, 300), kind, quality=95)
    decoded = decode(content)
    assert np.abs(decoded.astype(int) - np.asarray(picture(400, 300)).astype(int)).mean() < 4
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match="400 x 300 is more than 29,999 pixels"):
        decode(content, max_pixels=119_999)


def test_a_missing_file_is_answered_with_what_to_name(tmp_path):
    with pytest.raises(ImageError, match="No such file") as caught:
        decode(tmp_path / "absent.png")
    assert caught.value.cure == "name a file that exists"
