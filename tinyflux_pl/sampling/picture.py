"""Tensors to pictures, and PNG files with their settings as metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from tinyflux_pl.core import files


def to_picture(image: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] to an RGB picture."""
    pixels = image.float().add(1).mul(127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy(), "RGB")


def save_png(picture: Image.Image, path: str | Path, metadata: dict[str, Any]) -> None:
    """Write a PNG atomically with `metadata` as JSON under the key `tinyflux_pl` and the prompt."""
    info = PngInfo()
    info.add_itxt("tinyflux_pl", json.dumps(metadata, sort_keys=True))
    if "prompt" in metadata:
        info.add_itxt("prompt", str(metadata["prompt"]))
    with files.staged_file(path) as staging:
        picture.save(staging, format="PNG", pnginfo=info)
