"""Coverage of a mask from its pixels: 255 where it marks; ambiguous masks are refused."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from tinyflux_pl.core.errors import DataError, ImageError

CURE = "save it as a grey PNG: white where it holds, black elsewhere"
FAINT = 32  # of 255: a brightest value below it shows as black
COLOURED = 16  # steps between the channels of a pixel from which it is not grey
OFF = 32  # steps that a shade of one colour may be off in a channel
STRAY = 0.01  # share of pixels that may be off: where a lossy format blurs an edge


def of_grey(values: np.ndarray, full: int, name: str, unit: int = 1) -> UInt8[np.ndarray, "h w"]:
    """Coverage of grey values from 0 to `full`, 255 or 65535.

    Masks of 0 and `unit`, which show as black, are labels: 1 is foreground. So are 0 to 255 in a
    file of 16 bits. ImageError for any other mask whose brightest value is next to black.
    """
    most = int(values.max(initial=0))
    if most == 0 or (most == full and full == 255):
        return values.astype(np.uint8)
    if most <= unit:
        return np.where(values > 0, 255, 0).astype(np.uint8)
    if full > 255 and most == 255:
        return values.astype(np.uint8)
    if most * 255 < FAINT * full:
        what = (
            f"a mask whose brightest value is {most} of {full}: a map of labels, or nothing marked"
        )
        raise ImageError(what, where=name, cure=CURE)
    return (values >> 8 if full > 255 else values).astype(np.uint8)


def of_colour(pixels: UInt8[np.ndarray, "h w 3"], name: str) -> UInt8[np.ndarray, "h w"]:
    """Coverage of a mask painted in one colour on black or on transparency.

    ImageError for a mask of several colours, or of one and white: it is ambiguous.
    """
    peak = pixels.max(2)
    brightest = pixels.reshape(-1, 3)[int(peak.argmax())].astype(np.int32)
    scale = int(brightest.max())
    stray = 0
    for row, most in zip(pixels, peak, strict=True):  # a row at a time: the picture may be large
        shade = brightest * most[:, None].astype(np.int32) // scale
        stray += int((np.abs(row.astype(np.int32) - shade) > OFF).any(1).sum())
    if stray > STRAY * peak.size:
        raise ImageError("a mask in several colours", where=name, cure=CURE)
    return (peak.astype(np.uint16) * 255 // scale).astype(np.uint8)


def is_coloured(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """True if any pixel is not grey."""
    spread = pixels.max(2) - pixels.min(2)
    return int(spread.max(initial=0)) > COLOURED


def nothing_marked(count: int, where: str) -> DataError:
    """The error for a set of masks that are all empty."""
    what = f"in none of {count:,} masks anything is marked: they are black"
    return DataError(what, where=where, cure=f"{CURE}; or remove the masks")
