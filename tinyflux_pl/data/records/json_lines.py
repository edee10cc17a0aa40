"""Captions from one JSON or JSON-lines file that names images."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import CaptionError, DataError
from tinyflux_pl.data.records.dataset_files import (
    MAX_CAPTION_BYTES,
    images_and_masks,
    inside,
    is_file,
    text_of,
)

TABLES = ("metadata.jsonl", "metadata.json")
FILE_KEYS = ("file_name", "image", "file")
CAPTION_KEYS = ("text", "caption", "prompt")
CURE = 'write rows such as {"file_name": "a.png", "text": "a red circle"}'


def table_in(root: Path, name: str | None = None) -> Path | None:
    """The table of that name, else the first of TABLES that exists.

    CaptionError if it is not a file.
    """
    name = (
        name if name is not None else next((n for n in TABLES if os.path.lexists(root / n)), None)
    )
    if name is None:
        return None
    path = inside(root, name)
    if not is_file(path):
        there = os.path.lexists(root / name)
        what = "not a regular file" if there else "no such file of captions"
        cure = "correct or remove it" if there else "correct data.caption_file"
        raise CaptionError(what, where=str(root / name), cure=cure)
    return path


def captions_by_image(root: Path, table: Path) -> dict[str, str]:
    """Path relative to `root`, as the folder itself spells it, -> caption.

    A link to an image is an image of its own. Raises DataError for a row whose file is not there,
    CaptionError for two captions of one image.
    """
    base = root.resolve()
    captions: dict[str, str] = {}
    for file, caption in read_captions(table).items():
        image = inside(root, file)
        if not is_file(image):
            what = f"{table.name} names {file}, which is not there"
            raise DataError(what, where=str(table), cure=f"{_spelled(root, file)}correct the row")
        path = (root / file).parent.resolve() / Path(file).name
        name = (path if path.is_relative_to(base) else image).relative_to(base).as_posix()
        if captions.setdefault(name, caption) != caption:
            raise CaptionError(
                f"{name} has two captions", where=str(table), cure="keep one row for each file"
            )
    return captions


def _spelled(root: Path, file: str) -> str:
    """A hint if the folder spells a name of the table in another case or Unicode composition."""
    alike = (name for name in images_and_masks(root)[0] if _letters(name) == _letters(file))
    return "".join(
        f"the folder calls it {name!a}, the table {file!a}: " for name in islice(alike, 1)
    )


def _letters(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def read_captions(path: Path) -> dict[str, str]:
    """Relative file name -> caption, from any of these:

    .jsonl, one object a line; .json, a list of such objects, or a mapping of file names to captions
    or objects. Raises CaptionError naming the line or entry that does not fit, or names a file
    twice.
    """
    captions: dict[str, str] = {}
    for where, file, caption in _rows(path):
        if file in captions and captions[file] != caption:
            raise CaptionError(
                f"{file} has two captions", where=where, cure="keep one row for each file"
            )
        captions[file] = caption
    return captions


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    text = text_of(path)
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                where = f"{path}, line {number}"
                yield where, *_file_and_caption(_parsed(line, where), where)
        return
    content = _parsed(text, str(path))
    if isinstance(content, dict):
        content = [
            {"file_name": name, "text": entry}
            if isinstance(entry, str)
            else {"file_name": name, **_object(entry, name)}
            for name, entry in content.items()
        ]
    if not isinstance(content, list):
        raise CaptionError("neither a list nor a mapping", where=str(path), cure=CURE)
    for number, entry in enumerate(content):
        where = f"{path}, entry {number}"
        yield where, *_file_and_caption(entry, where)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise CaptionError(f"not JSON: {error}", where=where, cure=CURE) from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for name, value in pairs:
        if name in unique:
            raise ValueError(f"{name!r} occurs twice")
        unique[name] = value
    return unique


def _object(entry: Any, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise CaptionError(f"not an object: {str(entry)[:60]!r}", where=where, cure=CURE)
    return entry


def _file_and_caption(entry: Any, where: str) -> tuple[str, str]:
    entry = _object(entry, where)
    file = next((entry[key] for key in FILE_KEYS if key in entry), None)
    caption = next((entry[key] for key in CAPTION_KEYS if key in entry), "")
    if not isinstance(file, str) or not file:
        raise CaptionError(
            f"no {' or '.join(FILE_KEYS)} in {sorted(entry)}", where=where, cure=CURE
        )
    return file, checked_caption("" if caption is None else caption, file, where)


def checked_caption(caption: Any, file: str, where: str) -> str:
    """The caption, if it is text that UTF-8 can hold, and no longer than one beside an image may
    be.
    """
    if not isinstance(caption, str):
        raise CaptionError(
            f"the caption of {file} is not text: {str(caption)[:60]!r}", where=where, cure=CURE
        )
    try:
        size = len(caption.encode())
    except UnicodeEncodeError as error:  # half of a surrogate pair: JSON can say it, UTF-8 cannot
        raise CaptionError(
            f"the caption of {file} is not text: {error.reason}", where=where, cure=CURE
        ) from error
    if "\0" in caption:
        what = f"a NUL character stands in the caption of {file}"
        raise CaptionError(what, where=where, cure="take it out")
    if size > MAX_CAPTION_BYTES:
        what = f"{size:,} bytes of captions, more than {MAX_CAPTION_BYTES:,}"
        raise CaptionError(f"{what} ({file})", where=where, cure="shorten it")
    return caption
