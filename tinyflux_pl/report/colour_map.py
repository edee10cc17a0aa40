"""Small arrays as pictures: a colour scale with monotonic lightness."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from tinyflux_pl.report.pictures import Shot, encode

STOPS = np.array(
    [(18, 14, 48), (84, 20, 108), (176, 48, 92), (240, 120, 40), (252, 240, 170)], dtype=np.float64
)


def coloured(values: np.ndarray, low: float, high: float) -> Image.Image:
    """A picture of a pixel a value (H, W), low dark, high light."""
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1) * (len(STOPS) - 1)
    channels = [np.interp(share, np.arange(len(STOPS)), STOPS[:, c]) for c in range(3)]
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))


def map_shot(values: Tensor, high: float) -> Shot:
    """A map (S, S) from 0 to `high`."""
    return encode(coloured(values.cpu().numpy(), 0.0, high))


def scale_shot() -> Shot:
    """The scale itself, from left to right."""
    return encode(coloured(np.linspace(0, 1, 64)[None], 0.0, 1.0))


def picture_shot(pixels: Tensor) -> Shot:
    """A picture (3, H, W) in [-1, 1]."""
    levels = ((pixels.float().cpu().permute(1, 2, 0).numpy() + 1) * 127.5).round()
    return encode(Image.fromarray(levels.clip(0, 255).astype(np.uint8)))
