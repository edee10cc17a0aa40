"""Captions from one JSON or JSON-lines file that names images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.data.records.dataset_files import text_of

FILE_KEYS, CAPTION_KEYS = ("file_name", "image", "file"), ("text", "caption", "prompt")
CURE = 'write rows such as {"file_name": "a.png", "text": "a red circle"}'


def read_captions(path: Path) -> dict[str, str]:
    """Relative file name -> caption, from any of these:

    .jsonl, one object a line; .json, a list of such objects, or a mapping of file names to captions
    or objects. Raises CaptionError naming the line or entry that does not fit, or names a file twice.
    """
    captions: dict[str, str] = {}
    for where, file, caption in _rows(path):
        if file in captions and captions[file] != caption:
            raise CaptionError(f"{file} has two captions", where=where, cure="keep one row for each file")
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
    whole = _parsed(text, str(path))
    if isinstance(whole, dict):
        whole = [
            {"file_name": name, "text": entry}
            if isinstance(entry, str)
            else {"file_name": name, **_object(entry, name)}
            for name, entry in whole.items()
        ]
    if not isinstance(whole, list):
        raise CaptionError("neither a list nor a mapping", where=str(path), cure=CURE)
    for number, entry in enumerate(whole):
        where = f"{path}, entry {number}"
        yield where, *_file_and_caption(entry, where)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CaptionError(f"not JSON: {error}", where=where, cure=CURE) from error


def _object(entry: Any, where: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise CaptionError(f"not an object: {str(entry)[:60]!r}", where=where, cure=CURE)
    return entry


def _file_and_caption(entry: Any, where: str) -> tuple[str, str]:
    entry = _object(entry, where)
    file = next((entry[key] for key in FILE_KEYS if key in entry), None)
    caption = next((entry[key] for key in CAPTION_KEYS if key in entry), "")
    if not isinstance(file, str) or not file:
        raise CaptionError(f"no {' or '.join(FILE_KEYS)} in {sorted(entry)}", where=where, cure=CURE)
    if caption is None:
        caption = ""
    if not isinstance(caption, str):
        raise CaptionError(f"the caption of {file} is not text: {str(caption)[:60]!r}", where=where, cure=CURE)
    try:
        caption.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair: JSON can say it, UTF-8 cannot
        raise CaptionError(f"the caption of {file} is not text: {error.reason}", where=where, cure=CURE) from error
    return file, caption
