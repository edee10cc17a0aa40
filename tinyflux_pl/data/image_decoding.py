"""Files to RGB pixels: bounded before anything is decoded, strict about what is whole."""

from __future__ import annotations

import io
import re
import stat
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFile

from tinyflux_pl.core.errors import ConfigError, ImageError

DECODING_VERSION = 2  # part of the records' fingerprints: raise it when pixels change
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MAX_PIXELS = 2**25  # about 5792 x 5792; decoding takes at most 270 MiB beside the file's own bytes, measured
MAX_BYTES = 128 * 2**20
COSTLY = {"WEBP": 2}  # formats whose decoder takes so many times the memory of the others: so many times fewer pixels
ORIENTATION = 0x0112  # EXIF
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
STRIP = 2**20  # pixels converted at a time: a second copy of a large image would double its memory
WHITE = (255, 255, 255)
BLACK = (0, 0, 0)
CURE = "replace or remove the file"


def inspect(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = "") -> tuple[int, int]:
    """Width and height from the header alone (before EXIF rotation); ImageError as for `decode`."""
    name = name or _name(source)
    with _opened(content_of(source, name), max_pixels, name) as image:
        return image.size


def decode(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = "") -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of a file or of its bytes, upright by EXIF.

    Transparency lies on white; of an animation the first frame counts; 16-bit grey keeps its upper
    8 bits; CMYK and palettes are converted; LAB and floating-point images are refused.
    Raises ImageError, with the file's name, for what is not a whole image within `max_pixels` (WebP: half).
    """
    name = name or _name(source)
    return _pixels(content_of(source, name), max_pixels, name, "RGB")


def decode_mask(
    source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = ""
) -> UInt8[np.ndarray, "h w"]:
    """The luminance of an image: 255 where the mask holds. Errors as for `decode`."""
    name = name or _name(source)
    return _pixels(content_of(source, name), max_pixels, name, "L")


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
        with _pillow_bounded_to(max_pixels):
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        what = f"{int(found[0]) if found else 0:,} pixels are more than {max_pixels:,}"
        raise ImageError(what, where=name, cure=CURE) from error
    except Exception as error:  # decoders raise a dozen types on hostile bytes; all mean the same here
        why = "" if "BytesIO" in str(error) else f": {error}"
        raise ImageError(f"not a readable image ({', '.join(FORMATS)}){why}", where=name, cure=CURE) from error
    width, height = image.size
    bound = max_pixels // COSTLY.get(image.format or "", 1)
    if width * height > bound:
        what = f"{width} x {height} is more than {bound:,} pixels"
        raise ImageError(what, where=name, cure=CURE)
    return image


_BOUNDING = threading.Lock()


@contextmanager
def _pillow_bounded_to(max_pixels: int) -> Generator[None]:
    """Pillow's own limit lowered while a header is read: GIF and WebP allocate their canvas then already."""
    with _BOUNDING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        usual = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels  # above it Pillow warns, above twice that it raises
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _pixels(content: bytes, max_pixels: int, name: str, target: str) -> np.ndarray:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageError("Pillow was told to load truncated images", where=name, cure="unset LOAD_TRUNCATED_IMAGES")
    with _opened(content, max_pixels, name) as image:
        try:
            if image.format == "PNG":
                _opened(content, max_pixels, name).verify()  # load() does not read the checksums of the pixels
            image.load()
            upright = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
        except Exception as error:  # as above: truncated, damaged, or hostile
            raise ImageError(f"truncated or damaged: {error}", where=name, cure=CURE) from error
        width, height = image.size
        pixels = np.empty((height, width, 3) if target == "RGB" else (height, width), np.uint8)
        rows = max(1, STRIP // width)
        for top in range(0, height, rows):
            strip = image.crop((0, top, width, min(top + rows, height)))
            pixels[top : top + rows] = np.asarray(_converted(strip, name, target))
    del image  # before the turned copy is made
    return np.ascontiguousarray(upright(pixels)) if upright else pixels


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
        # what is transparent shows white paper in a picture, and in a mask marks nothing
        ground = Image.new("RGB", image.size, WHITE if target == "RGB" else BLACK)
        ground.paste(clear, mask=clear)
        return ground if target == "RGB" else ground.convert(target)
    return image if image.mode == target else image.convert(target)
