"""A possibly damaged metrics.csv as curves: truncated rows and bad cells are skipped."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

from tinyflux_pl.report.curve import Curve, curve_of

STEP = "step"
MAX_BYTES = 256 * 2**20
MAX_COLUMNS = 2_000


def read(path: Path) -> tuple[dict[str, Curve], list[str]]:
    """Column -> its curve, and a line for each fault of the file."""
    if not path.is_file():
        return {}, [f"no {path.name}: this run logged nothing to it"]
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    notes = []
    if len(content) > MAX_BYTES:
        notes.append(f"{path.name} is longer than {MAX_BYTES >> 20} MiB; its rest was not read")
        content = content[:MAX_BYTES]
    complete, end, truncated = content.decode("utf-8", "replace").rpartition("\n")
    if truncated:
        notes.append(
            f"the last line of {path.name} was cut off while it was written; it is left out"
        )
    cells, wrong = _cells(complete + end)
    if wrong:
        notes.append(f"{wrong:,} cells of {path.name} are not numbers; they are ignored")
    curves = {name: curve_of(name, *points) for name, points in cells.items()}
    return {name: curve for name, curve in curves.items() if len(curve) or curve.not_finite}, notes


def _cells(content: str) -> tuple[dict[str, tuple[list[float], list[float]]], int]:
    """Column -> its steps and values, and the number of cells that are no numbers."""
    columns: dict[str, tuple[list[float], list[float]]] = {}
    wrong = 0
    rows = _rows(content)
    header = next(rows, [])[:MAX_COLUMNS]
    if STEP not in header:
        return {}, 0
    at = header.index(STEP)
    for row in rows:
        step = _number(row[at]) if len(row) > at else None
        if step is None or not math.isfinite(step):
            wrong += 1
            continue
        for name, cell in zip(header, row, strict=False):
            if name == STEP or not cell:
                continue
            value = _number(cell)
            if value is None:
                wrong += 1
                continue
            steps, values = columns.setdefault(name, ([], []))
            steps.append(step)
            values.append(value)
    return columns, wrong


def _rows(content: str) -> Iterator[list[str]]:
    reader = csv.reader(io.StringIO(content.replace("\0", ""), newline=""))
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:  # a field longer than the reader's limit
            continue


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
