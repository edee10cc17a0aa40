"""Pictures as data URIs within a budget of bytes, and sheets of previews cut into them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tinyflux_pl.report.markup import Markup, tag
from tinyflux_pl.sampling import described_sheet

BUDGET = 6 * 2**20  # bytes of all pictures of a page, before base64 adds a third
MAX_STEPS, MAX_CAPTIONS = 16, 24  # shown at once; more are thinned out evenly
LARGEST, LARGEST_SHEET = 192, 960  # pixels of a side
SMALL = 64  # pixels up to which a picture is drawn with its pixels seen


@dataclass(frozen=True)
class Shot:
    """An encoded picture."""

    uri: str
    width: int
    height: int
    num_bytes: int

    @property
    def pixels(self) -> bool:
        """True for a picture so small that enlarging must not blur it."""
        return max(self.width, self.height) <= SMALL

    def image(self, alt: str) -> Markup:
        """The element."""
        return tag(
            "img",
            src=self.uri,
            alt=alt,
            width=self.width,
            height=self.height,
            loading="lazy",
            class_="pixels" if self.pixels else None,
        )


@dataclass
class Previews:
    """Steps -> caption -> picture; `captions` in their order, empty for whole sheets."""

    shots: dict[int, dict[str, Shot]]
    captions: list[str]
    notes: list[str]


def encode(picture: Image.Image) -> Shot:
    """PNG of a picture of few pixels, WebP of a larger one; what was enlarged is reduced first."""
    picture = _without_enlargement(picture.convert("RGB"))
    buffer = io.BytesIO()
    small = max(picture.size) <= SMALL
    if small:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "WEBP", quality=88)
    content = buffer.getvalue()
    kind = "png" if small else "webp"
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Shot(uri, *picture.size, len(content))


def previews(sheets: Mapping[int, Path], budget: int = BUDGET) -> Previews:
    """The pictures of the sheets, thinned out evenly over steps and captions to fit the budget."""
    notes: list[str] = []
    steps = evenly(list(sheets), MAX_STEPS)
    if len(steps) < len(sheets):
        notes.append(f"{len(steps)} of {len(sheets)} previews, evenly spread")
    cut: dict[int, dict[str, Image.Image]] = {}
    captions: list[str] = []
    for step in steps:
        try:
            sheet, cells = described_sheet.read(sheets[step])
        except (OSError, ValueError) as error:
            notes.append(f"{sheets[step].name}: {error}")
            continue
        cut[step] = _named(cells) or {"": sheet}
        captions += [name for name in cut[step] if name not in captions]
    if len(captions) > MAX_CAPTIONS:
        notes.append(f"{MAX_CAPTIONS} of {len(captions)} captions")
        captions = evenly(captions, MAX_CAPTIONS)
    shots, spent = _within(cut, captions, budget)
    if len(shots) < len(cut):
        size = f"{spent / 2**20:.1f} MiB"
        notes.append(f"{len(shots)} of {len(cut)} steps: more pictures than fit ({size} here)")
    return Previews(shots, captions, notes)


def evenly(items: Sequence, most: int) -> list:
    """At most `most` items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    rows = np.linspace(0, len(items) - 1, most).round().astype(int)
    return [items[row] for row in rows]


def _within(
    cut: Mapping[int, Mapping[str, Image.Image]], captions: Sequence[str], budget: int
) -> tuple[dict[int, dict[str, Shot]], int]:
    """Encoded pictures of as many steps as fit, and their bytes; the last step comes first."""
    encoded = {
        step: {
            name: encode(_reduced(cells[name], LARGEST if name else LARGEST_SHEET))
            for name in captions
            if name in cells
        }
        for step, cells in cut.items()
    }
    steps = list(encoded)
    while len(steps) > 1 and _bytes(encoded, steps) > budget:
        steps = evenly(steps, len(steps) - 1) if len(steps) > 2 else steps[-1:]
    return {step: encoded[step] for step in steps}, _bytes(encoded, steps)


def _bytes(encoded: Mapping[int, Mapping[str, Shot]], steps: Sequence[int]) -> int:
    return sum(shot.num_bytes for step in steps for shot in encoded[step].values())


def _named(cells: Sequence[described_sheet.Cell]) -> dict[str, Image.Image]:
    """Caption -> picture; equal captions are numbered."""
    named: dict[str, Image.Image] = {}
    for cell in cells:
        name, number = cell.caption, 1
        while name in named:
            number += 1
            name = f"{cell.caption} ({number})"
        named[name] = cell.picture
    return named


def _reduced(picture: Image.Image, limit: int) -> Image.Image:
    """The picture, reduced if a side is longer than the limit."""
    if max(picture.size) > limit:
        picture = picture.copy()
        picture.thumbnail((limit, limit), Image.Resampling.LANCZOS)
    return picture


def _without_enlargement(picture: Image.Image) -> Image.Image:
    """The picture before each of its pixels was drawn as a square of equal ones."""
    pixels = np.asarray(picture)
    for factor in (8, 6, 5, 4, 3, 2):
        if picture.width % factor or picture.height % factor:
            continue
        reduced = pixels[::factor, ::factor]
        if np.array_equal(reduced.repeat(factor, 0).repeat(factor, 1), pixels):
            return Image.fromarray(np.ascontiguousarray(reduced))
    return picture
