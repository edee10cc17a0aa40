"""Which font draws which character: Noto's faces, as files of two packages that hold nothing else."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont
from PIL.ImageFont import FreeTypeFont

PACKAGES = ("manimgx_fonts", "manimgx_fonts_cjk")
REGULAR = 400  # the weight at which a variable font is set; CJK's own default is a hairline
NO_CHARACTER = "\U000ffffe"  # which no font has: what is drawn for it marks a gap
INVISIBLE = ("Cc", "Cf")  # categories of characters that ask for no font of their own
VARIATIONS = range(0xFE00, 0xFE10)  # neither do selectors of a glyph's form


@lru_cache(maxsize=4)
def faces(pixels: int) -> tuple[FreeTypeFont, ...]:
    """Every upright face at that size: Latin first, Pillow's own last, the only one without the packages."""
    files = [file for package in PACKAGES for file in _files(package) if "Italic" not in file.name]
    files.sort(key=lambda file: not file.name.startswith("NotoSans["))
    found = [ImageFont.truetype(str(file), pixels) for file in files]
    for face in found:
        face.set_variation_by_axes([REGULAR, *(axis["default"] for axis in face.get_variation_axes()[1:])])
    own = ImageFont.load_default(pixels)
    return (*found, *([own] if isinstance(own, FreeTypeFont) else ()))


def runs(text: str, pixels: int) -> list[tuple[str, FreeTypeFont]]:
    """The text cut where the font changes; a character that no font has is written as its code point, U+0F40.

    A face is kept as long as it has the next character, so that words of one script stay whole. Space between two
    faces is a part of its own: within one that runs from right to left it would change sides.
    """
    found: list[tuple[str, FreeTypeFont]] = []
    face = faces(pixels)[0]
    for character in unicodedata.normalize("NFC", text):
        shown = unicodedata.category(character) not in INVISIBLE and ord(character) not in VARIATIONS
        if shown and not _draws(face, character):
            fitting = next((other for other in faces(pixels) if _draws(other, character)), None)
            face = fitting or faces(pixels)[0]
            character = character if fitting else f"U+{ord(character):04X}"
        if found and found[-1][1] is face:
            found[-1] = (found[-1][0] + character, face)
        else:
            found.append((character, face))
    return _spaces_apart(found, faces(pixels)[0])


def _spaces_apart(found: list[tuple[str, FreeTypeFont]], latin: FreeTypeFont) -> list[tuple[str, FreeTypeFont]]:
    apart: list[tuple[str, FreeTypeFont]] = []
    for text, face in found:
        inner = text.strip()
        before, _, after = text.partition(inner) if inner else (text, "", "")
        apart += [(part, own) for part, own in ((before, latin), (inner, face), (after, latin)) if part]
    return apart


def _files(package: str) -> list[Path]:
    spec = find_spec(package)  # found, not imported: no code of a package of fonts runs
    folders = [] if spec is None else spec.submodule_search_locations or []
    return sorted(file for folder in folders for file in Path(folder).glob("*.tt[fc]"))


@lru_cache(maxsize=16384)
def _draws(face: FreeTypeFont, character: str) -> bool:
    if character.isspace():
        return True
    return _bitmap(face, character) != _gap(face)


@lru_cache(maxsize=128)
def _gap(face: FreeTypeFont) -> tuple[bytes, float]:
    return _bitmap(face, NO_CHARACTER)


def _bitmap(face: FreeTypeFont, character: str) -> tuple[bytes, float]:
    bare = _unshaped(face)
    return bytes(bare.getmask(character)), bare.getlength(character)


@lru_cache(maxsize=128)
def _unshaped(face: FreeTypeFont) -> FreeTypeFont:
    """The same without a shaper, which would put a circle under a mark that stands alone."""
    return face.font_variant(layout_engine=ImageFont.Layout.BASIC)
