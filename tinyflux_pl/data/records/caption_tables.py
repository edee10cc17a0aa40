"""Captions from one table that names images: JSON, JSON lines, CSV or TSV."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import CaptionError, DataError
from tinyflux_pl.data.records.dataset_files import (
    MAX_CAPTION_BYTES,
    images_and_masks,
    inside,
    is_file,
)
from tinyflux_pl.data.records.spelling import letters
from tinyflux_pl.data.records.table_rows import CURE, rows_of

FILE_KEYS = ("file_name", "image", "file")
CAPTION_KEYS = ("text", "caption", "prompt")


@dataclass(frozen=True)
class CaptionTable:
    """The captions of each image, and the columns that are not read."""

    captions: dict[str, tuple[str, ...]]
    unread: tuple[str, ...] = ()


def captions_by_image(root: Path, table: Path, several: bool = False) -> CaptionTable:
    """Path relative to `root`, as the folder itself spells it, -> captions.

    A link to an image is an image of its own. Raises DataError for a row whose file is not there,
    CaptionError for rows that say different things of one image, unless there may be `several`.
    """
    base = root.resolve()
    captions: dict[str, tuple[str, ...]] = {}
    read = read_captions(table, several)
    for file, written in read.captions.items():
        image = inside(root, file)
        if not is_file(image):
            what = f"{table.name} names {file}, which is not there"
            raise DataError(what, where=str(table), cure=f"{_spelled(root, file)}correct the row")
        path = (root / file).parent.resolve() / Path(file).name
        name = (path if path.is_relative_to(base) else image).relative_to(base).as_posix()
        before = captions.get(name, written)
        if before != written and not several:
            raise _two_captions(name, str(table))
        captions[name] = tuple(dict.fromkeys((*before, *written)))
    return CaptionTable(captions, read.unread)


def _spelled(root: Path, file: str) -> str:
    """A hint if the folder has a name of the table in another case or Unicode composition."""
    alike = (name for name in images_and_masks(root)[0] if letters(name) == letters(file))
    return "".join(
        f"the folder calls it {name!a}, the table {file!a}: " for name in islice(alike, 1)
    )


def read_captions(path: Path, several: bool = False) -> CaptionTable:
    """Relative file name -> captions, from any of these:

    .jsonl, one object a line; .json, a list of such objects, or a mapping of file names to captions
    or objects; .csv and .tsv with a line of column names. A list in JSON is several captions, and
    with `several` so are the rows of one file. Raises CaptionError naming the line or entry that
    does not fit, or that says something else of a file.
    """
    captions: dict[str, tuple[str, ...]] = {}
    unread: dict[str, None] = {}
    for where, entry in rows_of(path):
        row = _row(entry, where)
        unread |= dict.fromkeys(row.unread)
        before = captions.get(row.file)
        if before is not None and before != row.captions and not several:
            raise _two_captions(row.file, row.where)
        captions[row.file] = tuple(dict.fromkeys((*(before or ()), *row.captions)))
    return CaptionTable(captions, tuple(unread))


@dataclass(frozen=True)
class _Row:
    """A file and its captions, where they stand, and keys that nothing reads."""

    where: str
    file: str
    captions: tuple[str, ...]
    unread: list[str] = field(default_factory=list)


def _two_captions(file: str, where: str) -> CaptionError:
    cure = "keep one row for each file, or read all of them: data.captions.several=true"
    return CaptionError(f"{file} has two captions", where=where, cure=cure)


def _row(entry: Any, where: str) -> _Row:
    if not isinstance(entry, dict):
        raise CaptionError(f"not an object: {str(entry)[:60]!r}", where=where, cure=CURE)
    file_key = next((key for key in FILE_KEYS if key in entry), "")
    caption_key = next((key for key in CAPTION_KEYS if key in entry), "")
    file = entry.get(file_key)
    if not isinstance(file, str) or not file:
        raise CaptionError(
            f"no {' or '.join(FILE_KEYS)} in {sorted(entry)}", where=where, cure=CURE
        )
    unread = [key for key in entry if key not in (file_key, caption_key)]
    return _Row(where, file, captions_of(entry.get(caption_key), file, where), unread)


def captions_of(value: Any, file: str, where: str) -> tuple[str, ...]:
    """The captions in one value: a text, a list of texts, or null for none."""
    texts = value if isinstance(value, list) else ["" if value is None else value]
    return tuple(checked_caption(text, file, where) for text in texts)


def checked_caption(caption: Any, file: str, where: str) -> str:
    """The caption, if it is UTF-8 text of at most MAX_CAPTION_BYTES; CaptionError."""
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
