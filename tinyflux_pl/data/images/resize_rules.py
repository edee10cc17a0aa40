"""Input pictures of generation: read, resized by the network's rule, converted to tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from tinyflux_pl.core.errors import ConfigError, ImageError
from tinyflux_pl.data.images.decode import decode, decode_mask

# (width, height) of about a million pixels: what FLUX.1 Kontext was trained on
PREFERRED = (
    *(
        (672, 1568),
        (688, 1504),
        (720, 1456),
        (752, 1392),
        (800, 1328),
        (832, 1248),
        (880, 1184),
        (944, 1104),
    ),
    (1024, 1024),
    *(
        (1104, 944),
        (1184, 880),
        (1248, 832),
        (1328, 800),
        (1392, 752),
        (1456, 720),
        (1504, 688),
        (1568, 672),
    ),
)
MASK_THRESHOLD = 128  # of 255: from here on a mask marks the region to paint
SMALL = 64  # pixels along a side of what a simulation draws
AREA = 1024 * 1024  # pixels that FLUX.2 reads of a reference
Pixels = UInt8[np.ndarray, "h w *c"]
ResizeRule = Callable[[Pixels, int], Pixels]  # pixels, side of a cell in pixels


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resize to exactly this size with LANCZOS, ignoring the aspect ratio."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def preferred(pixels: Pixels, cell: int) -> Pixels:
    """Resize to the size of PREFERRED with the nearest aspect ratio."""
    height, width = pixels.shape[:2]
    _, width, height = min((abs(width / height - w / h), w, h) for w, h in PREFERRED)
    return resized(pixels, height // cell * cell, width // cell * cell)


def round_down(pixels: Pixels, cell: int) -> Pixels:
    """Keep the size, rounded down to a multiple of the cell."""
    height, width = (max(side // cell, 1) * cell for side in pixels.shape[:2])
    return resized(pixels, height, width)


def limit_area(pixels: Pixels, cell: int) -> Pixels:
    """Shrink to at most AREA pixels and centre-crop to multiples of the cell (FLUX.2, FLUX.3)."""
    height, width = pixels.shape[:2]
    if height * width > AREA:
        scale = math.sqrt(AREA / (height * width))
        pixels = resized(pixels, int(height * scale), int(width * scale))
        height, width = pixels.shape[:2]
    rows = max(height // cell, 1) * cell
    columns = max(width // cell, 1) * cell
    if height < rows or width < columns:
        return resized(pixels, rows, columns)
    top = (height - rows) // 2
    left = (width - columns) // 2
    return pixels[top : top + rows, left : left + columns]


def limit_sides(pixels: Pixels, cell: int) -> Pixels:
    """Shrink to at most SMALL x SMALL pixels, in whole cells of the same aspect ratio."""
    return resized(pixels, *natural_size(pixels, cell, SMALL))


RULES: dict[str, ResizeRule] = {
    "preferred": preferred,
    "as_is": round_down,
    "area": limit_area,
    "small": limit_sides,
}


def rule_named(name: str) -> ResizeRule:
    """The resize rule of that name; ConfigError if there is none."""
    if name not in RULES:
        raise ConfigError(
            f"no size {name!r}", where="model.reference_size", cure=f"choose {', '.join(RULES)}"
        )
    return RULES[name]


def natural_size(pixels: Pixels, cell: int, side: int) -> tuple[int, int]:
    """(height, width) of the same aspect ratio, in whole cells, at most side x side pixels."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / math.sqrt(height * width))
    rows, columns = (max(int(edge * scale) // cell, 1) * cell for edge in (height, width))
    return rows, columns


def image_tensor(pixels: Pixels) -> Tensor:
    """Pixels (H, W, 3) -> (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float().div(127.5).sub(1)


def mask_tensor(coverage: Pixels) -> Tensor:
    """Coverage (H, W) -> (1, 1, H, W): 1 where a mask is at least half white."""
    return (torch.from_numpy(np.array(coverage)).float().div(255) >= 0.5).float()[None, None]


def read_picture(file: str | Path) -> Pixels:
    """RGB pixels of a file, within the decoder's limits."""
    return decode(Path(file).expanduser())


def read_inpaint_mask(file: str | Path) -> Pixels:
    """Coverage of a mask: 255 where to paint; ImageError if nothing is marked."""
    mask = decode_mask(Path(file).expanduser())
    if not (mask >= MASK_THRESHOLD).any():
        cure = "paint white where the picture is to be replaced"
        raise ImageError("the mask marks nothing", where=str(file), cure=cure)
    return mask
