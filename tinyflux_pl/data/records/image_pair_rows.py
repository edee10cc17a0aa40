"""Rows of a folder of image pairs: a target, its references or its mask, and the caption."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tinyflux_pl.core.errors import CaptionError, DataError
from tinyflux_pl.core.printable import printable
from tinyflux_pl.data.records.caption_tables import captions_of
from tinyflux_pl.data.records.dataset_files import (
    MAX_CAPTION_BYTES,
    Scan,
    inside,
    is_file,
    scanned,
    text_of,
)
from tinyflux_pl.data.records.finding import Finding, findings_of
from tinyflux_pl.data.records.table_rows import TABLES, rows_of, table_in
from tinyflux_pl.data.records.unused_files import unread

TARGET, REFERENCE, MASK, CAPTION = "_target", "_ref", "_mask", "_caption.txt"
ROLE = re.compile(r"(.*)_(target|mask|ref(\d*))", re.IGNORECASE | re.DOTALL)
KINDS_CURE = "give every target the same number of references, or a mask"
KEYS = ("target", "reference", "mask")
CAPTION_KEYS = ("caption", "text", "prompt")  # the first that is there
COLUMN_CURE = f"nothing: what is read is {', '.join(KEYS)} and {' or '.join(CAPTION_KEYS)}"
CURE = 'write rows such as {"target": "a.png", "reference": "b.png", "caption": "make it night"}'


@dataclass(frozen=True)
class PairRow:
    """Paths relative to the folder; `mask` is "" where there is none, as is the first caption."""

    target: str
    references: tuple[str, ...]
    mask: str
    caption: str
    other_captions: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Target, references and mask."""
        return (self.target, *self.references, *([self.mask] if self.mask else []))


def read_rows(root: Path) -> tuple[list[PairRow], list[Finding]]:
    """The pairs of a folder, from metadata.jsonl or metadata.json if present, else by file name.

    A row holds target, caption (one, or a list), and reference (one, or a list) or mask. By name,
    in letters of any case, NAME_target.png goes with NAME_ref.png (NAME_ref1.png, NAME_ref2.png
    ...), NAME_mask.png and NAME_caption.txt. Files that belong to no pair are findings. Raises
    DataError for a file that is not there, CaptionError for a caption that is no text.
    """
    table, scan = table_in(root), scanned(root)
    texts: set[str] = set()
    unread_columns: dict[str, None] = {}
    rows = list(_of_table(table, unread_columns) if table else _of_names(root, scan, texts))
    findings = _unmatched(scan, rows, texts | ({table.name} if table else set()))
    findings += findings_of("column not read", unread_columns, COLUMN_CURE)
    if not rows:
        lines = "".join(f"; {f.kind}: {f.line()}" for f in findings)
        cure = f"{CURE} in {TABLES[0]}, or name files NAME{TARGET}.png{printable(lines)}"
        raise DataError("no pairs", where=str(root), cure=cure)
    for row in rows:
        for path in row.files:
            if not is_file(inside(root, path)):
                raise DataError(
                    f"{path} is not there",
                    where=str(table or root),
                    cure="correct the row or the name",
                )
    if not any(row.references or row.mask for row in rows):
        what = f"no reference and no mask: {rows[0].target} ..."
        raise DataError(what, where=str(table or root), cure=KINDS_CURE)
    return rows, findings


def mixed_kinds(rows: list[PairRow], root: Path) -> DataError | None:
    """The error of pairs with different numbers of references, or some with a mask.

    None where all are alike.
    """
    kinds = {(len(row.references), bool(row.mask)): row.target for row in rows}
    if len(kinds) < 2:
        return None
    each = (
        f"{n} references{' and a mask' * masked} ({where})" for (n, masked), where in kinds.items()
    )
    return DataError(
        f"pairs of different kinds: {', '.join(each)}", where=str(root), cure=KINDS_CURE
    )


def _unmatched(scan: Scan, rows: list[PairRow], texts: set[str]) -> list[Finding]:
    used = {PurePosixPath(path).as_posix() for row in rows for path in row.files}
    alone = [name for name in (*scan.images, *scan.masks) if name not in used]
    captions = [n for n in scan.other_files if n.lower().endswith(".txt") and n not in texts]
    explained = {*texts, *captions}
    cure = f"name them NAME{TARGET}.png, NAME{REFERENCE}.png, NAME{MASK}.png, or take them out"
    return [
        *findings_of("in no pair", alone, cure),
        *findings_of(
            "caption alone",
            captions,
            f"name it NAME{CAPTION} as NAME{TARGET}.png is, or take it out",
        ),
        *unread(name for name in scan.other_files if name not in explained),
    ]


def _of_table(table: Path, unread_columns: dict[str, None]) -> Iterator[PairRow]:
    """A row for each of the table's; columns that nothing reads are added to `unread_columns`."""
    for where, entry in rows_of(table):
        row = entry if isinstance(entry, dict) else {}
        target, references, mask = row.get("target"), row.get("reference"), row.get("mask") or ""
        if not target:
            raise CaptionError(f"not a pair: no target in {sorted(row)}", where=where, cure=CURE)
        references = references if isinstance(references, list) else [references or ""]
        references = [*filter(None, references)] if references == [""] else references
        for path in (target, mask, *references):
            if not isinstance(path, str):
                key = {id(target): "target", id(mask): "mask"}.get(id(path), "reference")
                raise CaptionError(f"{key} is {str(path)[:60]}", where=where, cure=CURE)
        caption_key = next((key for key in CAPTION_KEYS if key in row), CAPTION_KEYS[0])
        captions = _captions(row.get(caption_key), target, where)
        unread_columns |= dict.fromkeys(key for key in row if key not in (*KEYS, caption_key))
        yield PairRow(target, tuple(references), mask, captions[0], captions[1:])


def _captions(value: Any, target: str, where: str) -> tuple[str, ...]:
    """The captions in one value, each stripped; one that is "" where there are none."""
    written = (text.strip() for text in captions_of(value, target, where))
    return tuple(filter(None, written)) or ("",)


def _of_names(root: Path, scan: Scan, texts: set[str]) -> Iterator[PairRow]:
    """A row for each target; the captions that are read are added to `texts`."""
    members: dict[str, list[tuple[str, int, str]]] = {}
    for name in scan.images:
        if role := ROLE.fullmatch(os.path.splitext(name)[0]):
            entry = (role[2].lower().rstrip("0123456789"), int(role[3] or 0), name)
            members.setdefault(role[1], []).append(entry)
    captions = {
        name.removesuffix(name[-len(CAPTION) :]): name
        for name in scan.other_files
        if _is_caption(name)
    }
    for stem, group in members.items():
        references = tuple(name for role, _, name in sorted(group) if role == "ref")
        mask = next((name for role, _, name in group if role == "mask"), "")
        caption = captions.get(stem, "")
        text = text_of(inside(root, caption), MAX_CAPTION_BYTES).strip() if caption else ""
        for target in [name for role, _, name in group if role == "target"]:
            texts |= {caption} if caption else set()
            yield PairRow(target, references, mask, text)


def _is_caption(name: str) -> bool:
    return name.lower().endswith(CAPTION)
