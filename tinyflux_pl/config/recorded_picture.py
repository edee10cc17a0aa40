"""The command recorded in a picture's file, restricted to names and plain values.

Of a line that somebody typed, a picture keeps the choices of model=, codec=, text= and path=, and
the plain values set in them. Names of files and repositories are left out both ways: a file may not
say what is opened or fetched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import ImageError

KEY = "tinyflux_pl"
GROUPS = ("model", "codec", "text", "path", "simulate", "engine.precision")
NAMED = "weights revision variant weights_file t5 clip t5_revision clip_revision tokenizer"
NAMED += " tokenizer_revision tokenizer_subfolder subfolder subfolders records"
FILES = frozenset(NAMED.split())  # keys whose values lead to files
MOST_LINES = 64
_LINE = re.compile(
    rf"({'|'.join(map(re.escape, GROUPS))})((?:\.[a-z][a-z0-9_]*)*)=([-+\w., \[\]]{{0,200}})"
)
LARGEST = 2**26  # bytes of a picture's file


def recordable(overrides: Sequence[str]) -> list[str]:
    """The overrides that a picture's file may repeat, in their order."""
    return [line for line in overrides if _is_plain(line)]


def _is_plain(line: str) -> bool:
    match = _LINE.fullmatch(line)
    return match is not None and not FILES & set(match[2].split("."))


def read(file: str | Path) -> dict[str, Any]:
    """The metadata of a picture's file; ImageError for one that was not drawn by this project."""
    from PIL import Image

    path = Path(file).expanduser()
    cure = "give a PNG that generate.py has written"
    if not path.is_file():
        raise ImageError("no such picture", where=str(path), cure=cure)
    if path.stat().st_size > LARGEST:
        raise ImageError(f"more than {LARGEST >> 20} MiB", where=str(path), cure=cure)
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            picture.load()
            text = picture.text.get(KEY)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        what = f"not a PNG that can be read: {str(error)[:100]}"
        raise ImageError(what, where=str(path), cure=cure) from error
    if text is None:
        raise ImageError("it records no settings", where=str(path), cure=cure)
    try:
        metadata = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        what = f"its metadata is not JSON: {str(error)[:100]}"
        raise ImageError(what, where=str(path), cure=cure) from error
    if not isinstance(metadata, dict):
        raise ImageError("its metadata is not an object", where=str(path), cure=cure)
    return metadata


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number")


def command(metadata: dict[str, Any], file: str | Path) -> list[str]:
    """The overrides of a picture's command; ImageError for one that is no plain choice or value."""
    lines = metadata.get("command", [])
    if not isinstance(lines, list) or len(lines) > MOST_LINES:
        raise ImageError("its command is not a list of overrides", where=str(file), cure=_CURE)
    for line in lines:
        if not isinstance(line, str) or not _is_plain(line):
            what = f"its command holds more than plain values: {str(line)[:60]!r}"
            raise ImageError(what, where=str(file), cure=_CURE)
    return lines


_CURE = "give a PNG that generate.py has written, unchanged"
