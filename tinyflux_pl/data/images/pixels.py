"""A decoded image to sRGB pixels on white, or to the coverage of a mask; strip by strip."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from tinyflux_pl.core.errors import ImageError
from tinyflux_pl.data.images import mask_coverage
from tinyflux_pl.data.images.colour_profile import to_srgb

STRIP = 2**20  # pixels converted at a time: a second copy of a large image would double its memory
WHITE = (255, 255, 255)
BLACK = (0, 0, 0)
PHOTOMETRIC = 262  # tag of a TIFF: 0 where 0 is white
CURE = "save it as 8-bit RGB, or remove the file"


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    width, height = image.size
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield slice(top, bottom), image.crop((0, top, width, bottom))


def picture(
    image: Image.Image, profile: bytes | None, depth: int, name: str
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels in sRGB, on white."""
    _require_black_zero(image, name)
    # of 16-bit files it is "I;16": nothing says which of 32 bits' values is white
    if image.mode == "I" and image.format == "TIFF":
        raise ImageError("32-bit or signed pixels", where=name, cure=CURE)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for rows, strip in _strips(image):
        colour, alpha = _parts(strip, depth, name)
        rgb = to_srgb(colour, profile)
        if alpha is not None:
            background = Image.new("RGB", strip.size, WHITE)
            background.paste(rgb, mask=alpha)
            rgb = background
        pixels[rows] = np.asarray(rgb)
    return pixels


def mask(
    image: Image.Image, profile: bytes | None, depth: int, name: str
) -> UInt8[np.ndarray, "h w"]:
    """Coverage; transparent pixels mark nothing."""
    _require_black_zero(image, name)
    if image.mode.startswith("I") and "transparency" not in image.info:
        return mask_coverage.of_grey(_deep(image, name), 65535, name)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    any_transparent = False
    any_visible = False
    for rows, strip in _strips(image):
        colour, alpha = _parts(strip, depth, name)
        rgb = colour.convert("RGB")
        if alpha is not None:
            background = Image.new("RGB", strip.size, BLACK)
            background.paste(rgb, mask=alpha)
            rgb = background
            least, most = alpha.getextrema()
            any_transparent = any_transparent or least < 255
            any_visible = any_visible or most > 0
        pixels[rows] = np.asarray(rgb)
    if any_transparent and any_visible and not pixels.any():
        what = "a mask of black on transparency: it may mark the black pixels, or the others"
        raise ImageError(what, where=name, cure=mask_coverage.CURE)
    if mask_coverage.is_coloured(pixels):
        return mask_coverage.of_colour(pixels, name)
    unit = 1 if depth >= 8 else 255 // (2**depth - 1)
    return mask_coverage.of_grey(
        np.ascontiguousarray(pixels[..., 0]), 255, name, unit if depth > 2 else 1
    )


def _require_black_zero(image: Image.Image, name: str) -> None:
    """Raise ImageError for a 16-bit TIFF with 0 as white, which Pillow reads as a negative."""
    is_deep = image.mode.startswith("I") and isinstance(image, TiffImageFile)
    if is_deep and image.tag_v2.get(PHOTOMETRIC) == 0:
        raise ImageError("16-bit pixels of which 0 is white", where=name, cure=CURE)


def _deep(image: Image.Image, name: str) -> UInt16[np.ndarray, "h w"]:
    """16-bit grey, which Pillow may widen to 32."""
    deep = np.asarray(image)
    if deep.min() < 0 or deep.max() > 65535:
        raise ImageError("grey values beyond 16 bits", where=name, cure=CURE)
    return deep.astype(np.uint16)


def _parts(image: Image.Image, depth: int, name: str) -> tuple[Image.Image, Image.Image | None]:
    """Colours in 8 bits, of mode L, RGB or CMYK, and their opacity; None: all are opaque."""
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        deep = _deep(image, name)
        grey = Image.fromarray((deep >> 8).astype(np.uint8))
        return grey, None if not isinstance(key, int) else _opaque(deep != key)
    if image.mode in ("1", "L") and isinstance(key, int):
        grey = image.convert("L")
        return grey, _opaque(np.asarray(grey) != key * 255 // (2 ** min(depth, 8) - 1))
    if image.mode == "RGB" and isinstance(key, tuple):
        clear = [value >> (8 if depth == 16 else 0) for value in key]
        return image, _opaque((np.asarray(image) != clear).any(2))
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    if image.mode in ("LA", "RGBA"):
        bands = image.split()
        return bands[0] if len(bands) == 2 else Image.merge("RGB", bands[:3]), bands[-1]
    if image.mode == "PA" or key is not None:
        bands = image.convert("RGBA").split()
        return Image.merge("RGB", bands[:3]), bands[3]
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert(
        "L" if image.mode == "1" else "RGB"
    ), None


def _opaque(seen: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where(seen, 255, 0).astype(np.uint8))
