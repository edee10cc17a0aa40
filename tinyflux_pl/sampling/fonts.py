"""Choice of a font for each character: Noto's faces, from two font packages."""

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
    """Every upright face at that size: Latin first, Pillow's default last.

    Without the packages the default is the only one.
    """
    files = [file for package in PACKAGES for file in _files(package) if "Italic" not in file.name]
    files.sort(key=lambda file: not file.name.startswith("NotoSans["))
    noto = [ImageFont.truetype(str(file), pixels) for file in files]
    for face in noto:
        face.set_variation_by_axes(
            [REGULAR, *(axis["default"] for axis in face.get_variation_axes()[1:])]
        )
    fallback = ImageFont.load_default(pixels)
    return (*noto, *([fallback] if isinstance(fallback, FreeTypeFont) else ()))


def runs(text: str, pixels: int) -> list[tuple[str, FreeTypeFont]]:
    """Split the text where the font changes.

    A character without glyph is written as its code point, U+0F40. A face stays as long as it has
    the next character, so that words of one script are not divided. Space between two faces is a
    part of its own: within one that runs from right to left it would change sides.
    """
    pieces: list[tuple[str, FreeTypeFont]] = []
    face = faces(pixels)[0]
    for character in unicodedata.normalize("NFC", text):
        visible = (
            unicodedata.category(character) not in INVISIBLE and ord(character) not in VARIATIONS
        )
        if visible and not _draws(face, character):
            fitting = next((other for other in faces(pixels) if _draws(other, character)), None)
            face = fitting or faces(pixels)[0]
            character = character if fitting else f"U+{ord(character):04X}"
        if pieces and pieces[-1][1] is face:
            pieces[-1] = (pieces[-1][0] + character, face)
        else:
            pieces.append((character, face))
    return _separate_spaces(pieces, faces(pixels)[0])


def _separate_spaces(
    pieces: list[tuple[str, FreeTypeFont]], latin: FreeTypeFont
) -> list[tuple[str, FreeTypeFont]]:
    separated: list[tuple[str, FreeTypeFont]] = []
    for text, face in pieces:
        inner = text.strip()
        before, _, after = text.partition(inner) if inner else (text, "", "")
        candidates = ((before, latin), (inner, face), (after, latin))
        separated += [(part, font) for part, font in candidates if part]
    return separated


def _files(package: str) -> list[Path]:
    spec = find_spec(package)  # located, not imported: no code of a package of fonts runs
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
