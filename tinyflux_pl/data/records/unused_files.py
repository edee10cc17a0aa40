"""Files of a picture folder that are not read, or possibly not as intended, with the cure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from tinyflux_pl.data.images import formats as image_formats
from tinyflux_pl.data.records.finding import Finding, findings_of
from tinyflux_pl.data.records.spelling import spelled_otherwise

TABLES = (
    *(".csv", ".tsv", ".parquet", ".arrow", ".feather", ".jsonl", ".ndjson", ".json", ".yaml"),
    *(".yml", ".xml", ".xlsx", ".xls", ".ods", ".db", ".sqlite", ".tar", ".tgz", ".zip", ".gz"),
    *(".captions", ".cap", ".tags", ".md5", ".7z", ".rar", ".zst", ".npz", ".lst"),
)
PICTURES_CURE = "save them as PNG or JPEG, or take them out"
TABLE_CURE = (
    "write NAME.txt beside NAME.png, or rows in metadata.jsonl or metadata.csv; "
    "take out what is not needed"
)


def unread(files: Iterable[str]) -> list[Finding]:
    """Pictures of kinds that are not read, tables and archives, and files of any other kind."""
    rest = list(files)
    optional = [suffix for kind in image_formats.OPTIONAL.values() for suffix in kind]
    pictures = [name for name in rest if image_formats.is_unread_picture(name)]
    extra = [name for name in pictures if os.path.splitext(name)[1].lower() in optional]
    tables = [name for name in rest if os.path.splitext(name)[1].lower() in TABLES]
    explained = {*pictures, *tables}
    return [
        *findings_of("needs an extra", extra, f"{image_formats.EXTRA}, or {PICTURES_CURE}"),
        *findings_of("kind not read", sorted({*pictures} - {*extra}), PICTURES_CURE),
        *findings_of("table not read", tables, TABLE_CURE),
        *findings_of(
            "not used",
            [name for name in rest if name not in explained],
            "take them out, or rename those that are pictures "
            f"({', '.join(image_formats.suffixes())})",
        ),
    ]


def of_folder(
    images: Sequence[str],
    other_files: Iterable[str],
    table: str | None,
    captions: Mapping[str, Sequence[str]] | None,
    texts: Mapping[str, Sequence[str]],
    captions_in: Callable[[str], Sequence[str]],
) -> list[Finding]:
    """Findings of a folder with the text files `texts` of each image.

    With a `table`, `captions` are those that it holds. `captions_in` reads a text file.
    """
    stems: dict[str, list[str]] = {}
    for image in images:
        stems.setdefault(_stem(image), []).append(image)
    rest = [name for name in other_files if name != table]
    read = {name for names in texts.values() for name in names}
    alone = sorted(
        name
        for name in rest
        if os.path.splitext(name)[1].lower() in (".txt", ".caption") and name not in read
    )
    differs: list[str] = []
    if captions is not None:
        for image, names in texts.items():
            written = [caption.strip() for caption in captions.get(image, ())]
            differs += [name for name in names if [*captions_in(name)] != [*filter(None, written)]]
    twins = [" = ".join(group) for group in stems.values() if len(group) > 1]
    without = {_stem(image): image for image in images if image not in texts}
    by_stem = {_stem(name): name for name in alone} if captions is None else {}
    respelled = spelled_otherwise(by_stem, without)
    return [
        *findings_of(
            "spelled otherwise",
            respelled,
            "rename one of the two: the same letters in another case or Unicode composition",
        ),
        *findings_of(
            "one stem", twins, "rename one of each: they share NAME.txt and NAME.mask.png"
        ),
        *findings_of(
            "caption alone",
            alone,
            "name it NAME.txt as its picture NAME.png is called, or take it out",
        ),
        *findings_of(
            ".txt not read",
            sorted({*differs}),
            f"{table} says otherwise and is read: correct it, or remove one of the two",
        ),
        *unread(name for name in rest if name not in read and name not in alone),
    ]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]
