"""Rows of a table next to pictures: JSON, JSON lines, CSV or TSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import CaptionError
from tinyflux_pl.data.records.caption_text import lines_of
from tinyflux_pl.data.records.dataset_files import MAX_CAPTION_BYTES, inside, is_file, text_of

TABLES = ("metadata.jsonl", "metadata.json", "metadata.csv", "metadata.tsv")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SEPARATORS = (",", ";", "\t")
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


def rows_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each row stands, and the row: a mapping of names to values, or what JSON holds there.

    A JSON file is a list of rows, or a mapping of file names to captions or to rows. Raises
    CaptionError naming the line or entry that cannot be read.
    """
    text = text_of(path)
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        yield from _columns(text, DELIMITERS[suffix], path)
    elif suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                where = f"{path}, line {number}"
                yield where, parsed(line, where)
    else:
        content = parsed(text, str(path))
        if isinstance(content, dict):
            content = [_row_of_file(name, entry, path) for name, entry in content.items()]
        if not isinstance(content, list):
            raise CaptionError("neither a list nor a mapping", where=str(path), cure=CURE)
        for number, entry in enumerate(content):
            yield f"{path}, entry {number}", entry


def parsed(text: str | bytes, where: str) -> Any:
    """JSON in which each name occurs once; CaptionError."""
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise CaptionError(f"not JSON: {error}", where=where, cure=CURE) from error


def _row_of_file(name: str, entry: Any, path: Path) -> Any:
    if entry is None or isinstance(entry, str | list):
        return {"file_name": name, "text": entry}
    where = f"{path}, {name}"
    if not isinstance(entry, dict):
        raise CaptionError(f"not an object: {str(entry)[:60]!r}", where=where, cure=CURE)
    if entry.get("file_name", name) != name:
        what, cure = f"two names: {name} and {entry['file_name']!r}", "take one of them out"
        raise CaptionError(what, where=where, cure=cure)
    return {"file_name": name, **entry}


def _columns(text: str, delimiter: str, path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows below a line of column names; CaptionError for one of another length.

    Of a line of names without `delimiter` another one counts, as spreadsheets write it.
    """
    text = text.lstrip("\r\n")
    first = next(iter(lines_of(text)))
    delimiter = next((each for each in (delimiter, *SEPARATORS) if each in first), delimiter)
    csv.field_size_limit(2 * MAX_CAPTION_BYTES)  # the limit of captions is judged by its reader
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [
            name.strip() or f"(column {number})" for number, name in enumerate(next(reader, ()), 1)
        ]
        if twice := next((name for name in names if names.count(name) > 1), None):
            what, cure = f"two columns are called {twice}", "give each a name of its own"
            raise CaptionError(what, where=f"{path}, line 1", cure=cure)
        for row in filter(None, reader):
            where = f"{path}, line {reader.line_num}"
            if len(row) != len(names):
                what = f"not {len(names)} columns, as the first line names"
                cure = "quote texts that hold the separator, and give each row every column"
                raise CaptionError(what, where=where, cure=cure)
            yield where, dict(zip(names, row, strict=True))
    except csv.Error as error:
        cure = f"write a line of names such as file_name{delimiter}text, and rows below it"
        where = f"{path}, line {reader.line_num}"
        raise CaptionError(f"not a table: {error}", where=where, cure=cure) from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for name, value in pairs:
        if name in unique:
            raise ValueError(f"{name!r} occurs twice")
        unique[name] = value
    return unique
