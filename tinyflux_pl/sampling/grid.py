"""A sheet of small pictures above their captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw
from torch import Tensor

from tinyflux_pl.sampling import caption_text, described_sheet
from tinyflux_pl.sampling.picture import to_picture

PAD, TEXT, LINES = 8, 12, 3  # pixels between cells; pixels of the captions' font; their lines
NARROWEST = 96  # pixels of a cell, so that a caption can be read
# pixels that a small picture is enlarged to, that a large one is reduced to
CELL, LARGEST = 128, 192


@dataclass
class Grid:
    """Collects the first `most` images, reduced on adding so that memory stays bounded."""

    most: int = 64
    largest: int = LARGEST
    cells: list[Image.Image] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)

    def add(self, picture: Image.Image, caption: str) -> None:
        """Add an image; ignored beyond `most`."""
        if len(self.cells) < self.most:
            self.cells.append(_cell(picture, self.largest))
            self.captions.append(caption)

    def sheet(self, columns: int = 0) -> Image.Image:
        """All images in `columns` columns; 0 makes the sheet somewhat wider than high."""
        count = len(self.cells)
        columns = min(columns or _columns(count), count)
        wide = max(NARROWEST, *(cell.width for cell in self.cells))
        tall = max(cell.height for cell in self.cells)
        blocks = [caption_text.lines(caption, TEXT, wide, LINES) for caption in self.captions]
        line = caption_text.line_height(TEXT)
        foot = line * max(map(len, blocks)) + 4
        rows = math.ceil(count / columns)
        size = columns * (wide + PAD) + PAD, rows * (tall + foot + PAD) + PAD
        sheet = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(sheet)
        boxes = []
        for index, (cell, block) in enumerate(zip(self.cells, blocks, strict=True)):
            left = PAD + (index % columns) * (wide + PAD)
            top = PAD + (index // columns) * (tall + foot + PAD)
            sheet.paste(cell, (left, top))
            boxes.append((left, top, left + cell.width, top + cell.height))
            pen.rectangle(
                (left - 1, top - 1, left + cell.width, top + cell.height), outline="#cccccc"
            )
            for number, text in enumerate(block):
                at = (left, top + tall + 2 + number * line)
                caption_text.write(pen, at, text, TEXT, "#222222")
        described_sheet.describe(sheet, boxes, self.captions)
        return sheet


def captioned_grid(images: Tensor, captions: Sequence[str]) -> Image.Image:
    """A sheet of all images (N, 3, H, W) in [-1, 1], each above its caption."""
    grid = Grid(most=len(images))
    for image, caption in zip(images, captions, strict=True):
        grid.add(to_picture(image), caption)
    return grid.sheet()


def paired_grid(images: Tensor, references: Tensor, captions: Sequence[str]) -> Image.Image:
    """A sheet of images (N, 3, H, W) in [-1, 1] with their references and captions.

    Each image stands left of its reference (N, 3, H, W) and above its caption.
    """
    grid = Grid(most=len(images), largest=2 * LARGEST)
    for image, reference, caption in zip(images, references, captions, strict=True):
        drawn = to_picture(image)
        target = to_picture(reference).resize(drawn.size)
        gap = max(1, drawn.width // 32)
        pair = Image.new("RGB", (drawn.width + gap + target.width, drawn.height), "white")
        pair.paste(drawn, (0, 0))
        pair.paste(target, (drawn.width + gap, 0))
        grid.add(pair, f"left drawn, right from the data: {caption}")
    return grid.sheet()


def _cell(picture: Image.Image, largest: int) -> Image.Image:
    """Enlarged by a whole number so that each pixel is seen, or reduced; what is between stays."""
    side = max(picture.size)
    if side > largest:
        size = [max(1, round(length * largest / side)) for length in picture.size]
        return picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    factor = max(1, min(round(CELL / min(picture.size)), largest // side))
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )


def _columns(count: int) -> int:
    ideal = math.ceil(math.sqrt(count * 1.6))
    return next((c for c in range(ideal, 2 * ideal) if count % c == 0), ideal)
