"""Pictures and masks fitted to a size by cropping or padding."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data.images.pixels import WHITE


def fit(
    image: UInt8[np.ndarray, "h w *c"], size: int | tuple[int, int], mode: str = "crop"
) -> np.ndarray:
    """Resize pixels to exactly `size` with kept aspect ratio, centred: LANCZOS (masks: BOX).

    `size` is a side, or height and width. crop fills the frame and loses the edges; pad keeps
    everything and adds white (a mask: 0).
    """
    height, width = (size, size) if isinstance(size, int) else size
    source_height, source_width = image.shape[:2]
    if (source_height, source_width) == (height, width):
        return image
    picture = Image.fromarray(image)
    # a mask is a coverage: LANCZOS would ring below 0 and above 1 at its edges
    kernel = Image.Resampling.LANCZOS if image.ndim == 3 else Image.Resampling.BOX
    if mode == "crop":
        # crop before resizing: a strip 1 pixel wide must not be enlarged entirely
        scale = min(source_width / width, source_height / height)
        left = (source_width - width * scale) / 2
        top = (source_height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
        return np.asarray(picture.resize((width, height), kernel, box=box))
    if mode == "pad":
        scale = min(width / source_width, height / source_height)
        inner = (max(1, round(source_width * scale)), max(1, round(source_height * scale)))
        frame = Image.new(picture.mode, (width, height), WHITE if picture.mode == "RGB" else 0)
        offset = ((width - inner[0]) // 2, (height - inner[1]) // 2)
        frame.paste(picture.resize(inner, kernel), offset)
        return np.asarray(frame)
    raise ConfigError(f"no way to fit an image: {mode!r}", cure="choose crop or pad")


def fit_mask(
    mask: UInt8[np.ndarray, "h w"], size: int | tuple[int, int], mode: str = "crop"
) -> Float[np.ndarray, "h2 w2"]:
    """A mask fitted as its image was, float32 in [0, 1]."""
    return fit(mask, size, mode).astype(np.float32) / 255
