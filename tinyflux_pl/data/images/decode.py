"""Image files to RGB pixels: bounded before anything is decoded, strict about truncation."""

from __future__ import annotations

import errno
import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile

from tinyflux_pl.core.errors import ImageError
from tinyflux_pl.core.regular_file import read_regular
from tinyflux_pl.data.images import formats as image_formats
from tinyflux_pl.data.images import jxl_header, png_chunks
from tinyflux_pl.data.images import pixels as image_pixels

DECODING_VERSION = 3  # part of the records' fingerprints: raise it when pixels change
# about 5792 x 5792; decoding takes at most 270 MiB beside the file's own bytes, measured
MAX_PIXELS = 2**25
MAX_BYTES = 128 * 2**20
# formats whose decoder takes several times the memory of the others: so many times fewer pixels
TURNED = "a TIFF that is turned"
COSTLY = {"WEBP": 2, TURNED: 2, "AVIF": 4, "HEIF": 4, "JXL": 4}
TILE = (322, 323)  # TIFF: width and height of a tile, a buffer of which is allocated
ORIENTATION = 0x0112  # EXIF
EXIF_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
)
EXIF_ERRORS += (ValueError, struct.error)  # raised by Pillow for damaged EXIF data
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
ON_ITS_SIDE = (5, 6, 7, 8)
CURE = "replace or remove the file"
SMALLER_CURE = "make the picture smaller; of training data the limit is data.max_pixels"


def inspect(
    source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = ""
) -> tuple[int, int]:
    """Width and height from the header alone, upright by EXIF; ImageError as for `decode`."""
    name = name or _name(source)
    content, _ = png_chunks.without_text(_content(source, name))
    with _opened(png_chunks.header(content), max_pixels, name) as image:
        # of a TIFF Pillow says the upright size, before it turns the pixels while it loads them
        is_turned = image.format != "TIFF" and _orientation(image) in ON_ITS_SIDE
        width, height = image.size
        return (height, width) if is_turned else (width, height)


def decode(
    source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = ""
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of a file or of its bytes, upright by EXIF.

    Transparency is composed on white; of an animation the first frame is read; 16-bit grey keeps
    its upper 8 bits; an embedded colour profile is converted to sRGB; CMYK and palettes are
    converted; LAB and floating-point images are refused. Raises ImageError, with the file's name,
    for damaged or truncated files and for images above `max_pixels` (WebP and rotated TIFF: half of
    it; AVIF, HEIC, JPEG XL: a quarter).
    """
    name = name or _name(source)
    return _decoded(_content(source, name), max_pixels, name, image_pixels.picture)


def decode_mask(
    source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = ""
) -> UInt8[np.ndarray, "h w"]:
    """Coverage of a mask: 255 where it marks, by images.mask_coverage. Errors as for `decode`."""
    name = name or _name(source)
    return _decoded(_content(source, name), max_pixels, name, image_pixels.mask)


def _name(source: str | Path | bytes) -> str:
    return "(bytes)" if isinstance(source, bytes) else str(source)


def _content(source: str | Path | bytes, name: str) -> bytes:
    """As `content_of`, but links are followed."""
    return content_of(source if isinstance(source, bytes) else os.path.realpath(source), name)


def content_of(source: str | Path | bytes, name: str) -> bytes:
    """Bytes of a regular file of bounded size.

    Markup and LFS pointers are refused, links not followed.
    """
    if isinstance(source, bytes):
        content = source
    else:
        try:
            content = read_regular(source, MAX_BYTES)
        except OSError as error:
            is_explained = error.errno in (errno.EINVAL, errno.EFBIG)
            what = error.strerror if is_explained else f"cannot be read: {error.strerror}"
            is_missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
            cure = "name a file that exists" if is_missing else CURE
            raise ImageError(str(what), where=name, cure=cure) from error
    if not content:
        raise ImageError("an empty file", where=name, cure=CURE)
    start = content[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg", b"<head")):
        raise ImageError(
            "a web page or markup, not an image", where=name, cure="download the image itself"
        )
    if start.startswith(b"version https://git-lfs"):
        raise ImageError(
            "a Git LFS pointer, not the image", where=name, cure="run git lfs pull in the dataset"
        )
    return content


def _opened(content: bytes, max_pixels: int, name: str) -> Image.Image:
    formats = image_formats.formats()
    if (size := jxl_header.size_of(content)) is not None:  # its decoder decodes at opening
        _require_bounded(*size, "JXL", max_pixels, name)
    try:
        with _pillow_limited_to(max_pixels):
            image = Image.open(io.BytesIO(content), formats=formats)
    except Image.DecompressionBombError as error:
        match = re.search(r"\d+", str(error))
        what = f"{int(match[0]) if match else 0:,} pixels are more than {max_pixels:,}"
        raise ImageError(what, where=name, cure=SMALLER_CURE) from error
    except Exception as error:  # decoders raise a dozen types for damaged bytes
        if extra := image_formats.missing_extra(content[:16]):
            cure = f"{image_formats.EXTRA}, which reads it, or save it as PNG or JPEG"
            raise ImageError(f"a {extra} picture", where=name, cure=cure) from error
        reason = "" if "BytesIO" in str(error) else f": {error}"
        what = f"not a readable image ({', '.join(formats)}){reason}"
        raise ImageError(what, where=name, cure=CURE) from error
    _require_bounded(*image.size, image.format or "", max_pixels, name)
    if image.mode in ("F", "LAB"):
        raise ImageError(f"{image.mode} pixels", where=name, cure="save it as 8-bit RGB")
    if image.format == "TIFF":
        across, down = (image.tag_v2.get(tag, 1) for tag in TILE)
        _require_bounded(int(across), int(down), "TIFF", max_pixels, name)
        if _orientation(image) != 1:  # Pillow turns it beside the first copy
            _require_bounded(*image.size, TURNED, max_pixels, name)
    return image


def _require_bounded(width: int, height: int, kind: str, max_pixels: int, name: str) -> None:
    bound = max_pixels // COSTLY.get(kind, 1)
    if width * height > bound:
        what = f"{width} x {height} is more than {bound:,} pixels"
        raise ImageError(what, where=name, cure=SMALLER_CURE)


_BOUNDING = threading.Lock()


@contextmanager
def _pillow_limited_to(max_pixels: int) -> Generator[None]:
    """Inside, lower Pillow's own limit: GIF and WebP allocate their canvas with the header."""
    with _BOUNDING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the limit, and of odd metadata
        usual = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels  # above it Pillow warns, above twice that it raises
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = usual


Reader = Callable[[Image.Image, bytes | None, int, str], np.ndarray]


def _decoded(content: bytes, max_pixels: int, name: str, read: Reader) -> np.ndarray:
    """The result of `read` for the loaded image, its colour profile and its bit depth; upright."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageError(
            "Pillow is set to load truncated images",
            where=name,
            cure="unset LOAD_TRUNCATED_IMAGES",
        )
    content, profile = png_chunks.without_text(content)
    with _opened(content, max_pixels, name) as image:
        try:
            if image.format == "PNG":
                # load() does not read the checksums of the pixels
                _opened(content, max_pixels, name).verify()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd metadata
                image.load()
                upright = UPRIGHT.get(_orientation(image))
            _require_bounded(*image.size, image.format or "", max_pixels, name)
            profile = profile or image.info.get("icc_profile")
            pixels = read(image, profile, png_chunks.bit_depth(content), name)
        except ImageError:
            raise
        except Exception as error:  # as above: truncated, damaged, or hostile
            raise ImageError(f"truncated or damaged: {error}", where=name, cure=CURE) from error
    del image  # before the turned copy is made
    return np.ascontiguousarray(upright(pixels)) if upright else pixels


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; 1 (upright) if it cannot be read."""
    try:
        if image.format == "PNG":  # whose own method would decode it, to look behind its pixels
            return Image.Image.getexif(image).get(ORIENTATION, 1)
        return image.getexif().get(ORIENTATION, 1)
    except EXIF_ERRORS:
        return 1
