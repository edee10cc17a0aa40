"""A sheet of pictures whose PNG metadata has the box and caption of each picture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

KEY = "tinyflux_pl.cells"
MAX_BYTES, MAX_PIXELS, MAX_CELLS = 64 * 2**20, 2**26, 1024


@dataclass(frozen=True)
class Cell:
    """A picture of a sheet and its caption."""

    picture: Image.Image
    caption: str


def describe(
    sheet: Image.Image, boxes: list[tuple[int, int, int, int]], captions: list[str]
) -> None:
    """Attach the cells' boxes (left, top, right, bottom) and captions, for `save`."""
    cells = zip(boxes, captions, strict=True)
    sheet.info[KEY] = [{"box": list(box), "caption": caption} for box, caption in cells]


def save(sheet: Image.Image, path: Path) -> None:
    """Write the PNG with its description."""
    metadata = PngImagePlugin.PngInfo()
    metadata.add_itxt(KEY, json.dumps(sheet.info[KEY], ensure_ascii=False))
    sheet.save(path, pnginfo=metadata)


def read(path: Path) -> tuple[Image.Image, list[Cell]]:
    """The sheet and its cells (none if it describes none).

    ValueError for a file that is no PNG of bounded size.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES:,} bytes")
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels")
            sheet = image.convert("RGB")
            description = image.info.get(KEY, "[]")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a PNG that can be read: {error}") from error
    return sheet, _cells(sheet, description)


def _cells(sheet: Image.Image, description: Any) -> list[Cell]:
    """The described cells; none if a single one is not within the sheet."""
    try:
        entries = json.loads(description)[:MAX_CELLS]
        cells = [(tuple(map(int, e["box"])), str(e["caption"])) for e in entries]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    inside = all(
        len(box) == 4
        and 0 <= box[0] < box[2] <= sheet.width
        and 0 <= box[1] < box[3] <= sheet.height
        for box, _ in cells
    )
    return [Cell(sheet.crop(box), caption) for box, caption in cells] if inside else []
