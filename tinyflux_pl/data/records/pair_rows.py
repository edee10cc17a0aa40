"""Which files of a folder belong together: a target, its references or its hole, and the caption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.core.errors import CaptionError, DataError
from tinyflux_pl.data.records.dataset_files import MAX_CAPTION_BYTES, images_and_masks, inside, is_file, text_of
from tinyflux_pl.data.records.json_lines import TABLES, checked_caption, table_in

TARGET, REFERENCE, MASK, CAPTION = "_target", "_ref", "_mask", "_caption.txt"
CURE = 'write rows such as {"target": "a.png", "reference": "b.png", "caption": "make it night"}'


@dataclass(frozen=True)
class PairRow:
    """Paths relative to the folder; `mask` is "" where there is none."""

    target: str
    references: tuple[str, ...]
    mask: str
    caption: str


def read_rows(root: Path) -> list[PairRow]:
    """The pairs of a folder, from metadata.jsonl or metadata.json where there is one, else from names.

    A row holds target, caption, and reference (one, or a list) or mask. By name NAME_target.png goes with
    NAME_ref.png (NAME_ref1.png, NAME_ref2.png ...), NAME_mask.png and NAME_caption.txt. Raises DataError for a
    file that is not there and for rows that differ in kind, CaptionError for a caption that is no text.
    """
    table = table_in(root)
    rows = list(_of_table(table) if table else _of_names(root))
    if not rows:
        raise DataError("no pairs", where=str(root), cure=f"{CURE} in {TABLES[0]}, or name files NAME{TARGET}.png")
    for row in rows:
        for path in (row.target, *row.references, *([row.mask] if row.mask else [])):
            if not is_file(inside(root, path)):
                raise DataError(f"{path} is not there", where=str(table or root), cure="correct the row or the name")
    kinds = {(len(row.references), bool(row.mask)): row.target for row in rows}
    cure = "give every target the same number of references, or a mask"
    if kinds.keys() == {(0, False)}:
        raise DataError(f"no reference and no mask: {rows[0].target} ...", where=str(table or root), cure=cure)
    if len(kinds) > 1:
        told = ", ".join(f"{n} references{' and a mask' * masked} ({where})" for (n, masked), where in kinds.items())
        raise DataError(f"pairs of different kinds: {told}", where=str(table or root), cure=cure)
    return rows


def _of_table(table: Path) -> Iterator[PairRow]:
    text = text_of(table)
    lines = text.split("\n") if table.suffix == ".jsonl" else [text]
    entries: list[tuple[str, Any]] = []
    for where, line in ((f"{table}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()):
        try:
            entries.append((where, json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise CaptionError(f"not JSON: {error}", where=where, cure=CURE) from error
    if table.suffix == ".json":
        rows = entries[0][1] if entries else []
        if not isinstance(rows, list):
            raise CaptionError("not a list of rows", where=str(table), cure=CURE)
        entries = [(f"{table}, row {number}", row) for number, row in enumerate(rows, 1)]
    for where, entry in entries:
        row = entry if isinstance(entry, dict) else {}
        references = row.get("reference", [])
        references = [references] if isinstance(references, str) else references
        target, mask, caption = row.get("target"), row.get("mask", ""), row.get("caption", "")
        if not isinstance(references, list):
            raise CaptionError(f"reference is {references!r}", where=where, cure=CURE)
        if not target or not all(isinstance(value, str) for value in (target, mask, caption, *references)):
            raise CaptionError(f"not a pair: {sorted(row)}", where=where, cure=CURE)
        yield PairRow(target, tuple(references), mask, checked_caption(caption, target, where).strip())


def _of_names(root: Path) -> Iterator[PairRow]:
    found = [root / name for name in images_and_masks(root)[0]]
    for path in found:
        if not path.stem.endswith(TARGET):
            continue
        stem = path.stem.removesuffix(TARGET)
        beside = [other for other in found if other.parent == path.parent and other.stem.startswith(stem + "_")]
        numbers = {o: _number(o.stem, stem + REFERENCE) for o in beside}
        references = sorted((o for o in beside if numbers[o] is not None), key=lambda o: numbers[o])
        mask = next((o for o in beside if o.stem == stem + MASK), None)
        caption = inside(root, path.with_name(stem + CAPTION).relative_to(root).as_posix())
        names = [o.relative_to(root).as_posix() for o in references]
        told = text_of(caption, MAX_CAPTION_BYTES).strip() if is_file(caption) else ""
        yield PairRow(
            path.relative_to(root).as_posix(), tuple(names), mask.relative_to(root).as_posix() if mask else "", told
        )


def _number(stem: str, begin: str) -> int | None:
    """What follows `begin`: 0 where nothing does, None where it is no number."""
    rest = stem.removeprefix(begin)
    return None if rest == stem or not (rest or "0").isdecimal() else int(rest or 0)
