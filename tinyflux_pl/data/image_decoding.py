"""Files to RGB pixels: bounded before anything is decoded, strict about what is whole."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFile, ImageOps

from tinyflux_pl.core.errors import ConfigError, ImageError

DECODING_VERSION = 1  # part of the records' fingerprints: raise it when pixels change
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MAX_PIXELS = 2**25  # about 5792 x 5792; decoding then takes at most 400 MB, measured
MAX_BYTES = 256 * 2**20
WHITE = (255, 255, 255)
CURE = "replace or remove the file, or leave such files out with data.skip_bad=true"


def inspect(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = "") -> tuple[int, int]:
    """Width and height from the header alone (before EXIF rotation); ImageError as for `decode`."""
    name = name or _name(source)
    with _opened(content_of(source, name), max_pixels, name) as image:
        return image.size


def decode(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = "") -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of a file or of its bytes, upright by EXIF.

    Transparency lies on white; of an animation the first frame counts; 16-bit grey keeps its upper
    8 bits; CMYK and palettes are converted; LAB and floating-point images are refused.
    Raises ImageError, with the file's name, for what is not a whole image within `max_pixels`.
    """
    name = name or _name(source)
    return np.asarray(_pixels(content_of(source, name), max_pixels, name, "RGB"))


def decode_mask(
    source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = ""
) -> UInt8[np.ndarray, "h w"]:
    """The luminance of an image: 255 where the mask holds. Errors as for `decode`."""
    name = name or _name(source)
    return np.asarray(_pixels(content_of(source, name), max_pixels, name, "L"))


def fit(image: UInt8[np.ndarray, "h w *c"], size: int | tuple[int, int], mode: str = "crop") -> np.ndarray:
    """Pixels of exactly `size` (side, or height and width), never squashed: LANCZOS (a mask: BOX), centred.

    crop fills the frame and loses the edges; pad keeps everything and adds white (a mask: 0).
    """
    height, width = (size, size) if isinstance(size, int) else size
    source_height, source_width = image.shape[:2]
    if (source_height, source_width) == (height, width):
        return image
    picture = Image.fromarray(image)
    # a mask is a coverage: LANCZOS would ring below 0 and above 1 at its edges
    kernel = Image.Resampling.LANCZOS if image.ndim == 3 else Image.Resampling.BOX
    if mode == "crop":
        # the box is cut before resizing: a strip 1 pixel wide must not be enlarged as a whole
        scale = min(source_width / width, source_height / height)
        left, top = (source_width - width * scale) / 2, (source_height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
        return np.asarray(picture.resize((width, height), kernel, box=box))
    if mode == "pad":
        scale = min(width / source_width, height / source_height)
        inner = (max(1, round(source_width * scale)), max(1, round(source_height * scale)))
        frame = Image.new(picture.mode, (width, height), WHITE if picture.mode == "RGB" else 0)
        place = ((width - inner[0]) // 2, (height - inner[1]) // 2)
        frame.paste(picture.resize(inner, kernel), place)
        return np.asarray(frame)
    raise ConfigError(f"no way to fit an image: {mode!r}", cure="choose crop or pad")


def fit_mask(
    mask: UInt8[np.ndarray, "h w"], size: int | tuple[int, int], mode: str = "crop"
) -> Float[np.ndarray, "h2 w2"]:
    """A mask fitted as its image was, float32 in [0, 1]."""
    return fit(mask, size, mode).astype(np.float32) / 255


def _name(source: str | Path | bytes) -> str:
    return "(bytes)" if isinstance(source, bytes) else str(source)


def content_of(source: str | Path | bytes, name: str) -> bytes:
    """A file's bytes, if it is a regular file of bounded size and not plainly something else."""
    if isinstance(source, bytes):
        content = source
    else:
        try:
            status = Path(source).stat()
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("not a regular file", where=name, cure=CURE)
            if status.st_size > MAX_BYTES:
                raise ImageError(f"{status.st_size:,} bytes, more than {MAX_BYTES:,}", where=name, cure=CURE)
            content = Path(source).read_bytes()
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}", where=name, cure=CURE) from error
    if not content:
        raise ImageError("an empty file", where=name, cure=CURE)
    start = content[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg", b"<head")):
        raise ImageError("a web page or markup, not an image", where=name, cure="download the image itself")
    if start.startswith(b"version https://git-lfs"):
        raise ImageError("a Git LFS pointer, not the image", where=name, cure="run git lfs pull in the dataset")
    return content


def _opened(content: bytes, max_pixels: int, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"more than {max_pixels:,} pixels ({error})", where=name, cure=CURE) from error
    except Exception as error:  # decoders raise a dozen types on hostile bytes; all mean the same here
        what = f"not a readable image ({', '.join(FORMATS)}): {error}"
        raise ImageError(
            what.replace(f" {error}", "") if "BytesIO" in str(error) else what, where=name, cure=CURE
        ) from error
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} is more than {max_pixels:,} pixels", where=name, cure=CURE)
    return image


def _pixels(content: bytes, max_pixels: int, name: str, target: str) -> Image.Image:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageError("Pillow was told to load truncated images", where=name, cure="unset LOAD_TRUNCATED_IMAGES")
    with _opened(content, max_pixels, name) as image:
        try:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # in place: a copy costs as much as the image
        except Exception as error:  # as above: truncated, damaged, or hostile
            raise ImageError(f"truncated or damaged: {error}", where=name, cure=CURE) from error
        return _converted(image, name, target)


def _converted(image: Image.Image, name: str, target: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow may widen to 32
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise ImageError("grey values beyond 16 bits", where=name, cure=CURE)
        return Image.fromarray((deep >> 8).astype(np.uint8)).convert(target)
    if image.mode in ("F", "LAB"):
        raise ImageError(f"{image.mode} pixels", where=name, cure="save it as 8-bit RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        clear = image if image.mode == "RGBA" else image.convert("RGBA")
        ground = Image.new("RGB", image.size, WHITE)
        ground.paste(clear, mask=clear)
        return ground if target == "RGB" else ground.convert(target)
    return image if image.mode == target else image.convert(target)
