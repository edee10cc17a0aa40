"""Tensors to pictures: PNG files that say how they were made, and captioned grids."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from tinyflux_pl.core import files


def to_picture(image: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] to an RGB picture."""
    pixels = image.float().add(1).mul(127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy(), "RGB")


def save_png(picture: Image.Image, path: str | Path, metadata: dict[str, Any]) -> None:
    """Write atomically, with `metadata` as JSON under the key `tinyflux_pl` and the prompt beside it."""
    info = PngInfo()
    info.add_itxt("tinyflux_pl", json.dumps(metadata, sort_keys=True))
    if "prompt" in metadata:
        info.add_itxt("prompt", str(metadata["prompt"]))
    with files.staged_file(path) as staging:
        picture.save(staging, format="PNG", pnginfo=info)


def captioned_grid(images: Tensor, captions: Sequence[str], columns: int = 0, cell: int = 128) -> Image.Image:
    """A sheet of images (N, 3, H, W) enlarged to about `cell` pixels, each above its caption."""
    count, height, width = len(images), images.shape[-2], images.shape[-1]
    ideal = math.ceil(math.sqrt(count * 1.6))
    columns = columns or next((c for c in range(ideal, 2 * ideal) if count % c == 0), ideal)
    factor = max(1, round(cell / max(height, width)))
    pad, font = 8, ImageFont.load_default(12)
    tall, wide = height * factor, max(width * factor, 96)
    lines = [textwrap.wrap(c, max(8, wide // 7))[:3] for c in captions]
    foot = 15 * max((len(block) for block in lines), default=1) + 4
    rows = math.ceil(count / columns)
    sheet = Image.new("RGB", (columns * (wide + pad) + pad, rows * (tall + foot + pad) + pad), "white")
    pen = ImageDraw.Draw(sheet)
    smooth = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    for index, image in enumerate(images):
        left, top = pad + (index % columns) * (wide + pad), pad + (index // columns) * (tall + foot + pad)
        sheet.paste(to_picture(image).resize((width * factor, tall), smooth), (left, top))
        pen.rectangle((left - 1, top - 1, left + width * factor, top + tall), outline="#cccccc")
        pen.multiline_text((left, top + tall + 2), "\n".join(lines[index]), fill="#222222", font=font, spacing=2)
    return sheet
