"""The table of a sweep: sweep.csv in its folder, updated as jobs end, printed at the end."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tinyflux_pl.app.reporting import closing_report, tables
from tinyflux_pl.app.sweeps import rows
from tinyflux_pl.app.sweeps.rows import Row
from tinyflux_pl.config.redact import redact
from tinyflux_pl.core import files
from tinyflux_pl.core.file_lock import locked
from tinyflux_pl.core.printable import printable

FILE = "sweep.csv"
LOCK = ".table.lock"
FILE_ONLY = ("images_per_second",)  # results that are not in the printed table


def write(sweep_dir: Path) -> list[Row]:
    """Collect the rows of all jobs into sweep.csv, atomically, one process at a time."""
    (sweep_dir / rows.FOLDER).mkdir(parents=True, exist_ok=True)
    with locked(sweep_dir / rows.FOLDER, LOCK, wait=lambda _: time.sleep(0)):
        collected = rows.read(sweep_dir)
        files.write_bytes(sweep_dir / FILE, _text(collected).encode())
    return collected


def show(sweep_dir: Path) -> list[Row]:
    """Update the table and print it, with a column for each key whose values differ."""
    collected = write(sweep_dir)
    names = [name for name in results(collected) if name not in FILE_ONLY]
    chosen = [dict(line.partition("=")[::2] for line in row.overrides) for row in collected]
    keys = list(dict.fromkeys(key for values in chosen for key in values))
    keys = [key for key in keys if len({values.get(key) for values in chosen}) > 1]
    table = Table(title=f"sweep {sweep_dir}", title_justify="left", box=None)
    for key in ("job", "state"):
        table.add_column(key)
    for key in keys:
        table.add_column(_last_part(key, keys), overflow="fold")
    for name in (*names, "seconds"):
        table.add_column(name.replace("_", " "), justify="right")
    for row, values in zip(collected, chosen, strict=True):
        numbers = [_short(row.results.get(name)) for name in names]
        cells = [str(row.number), row.state, *(_rounded(values.get(key, "")) for key in keys)]
        cells += [*numbers, _short(row.seconds)]
        table.add_row(*(printable(redact(cell)) for cell in cells))
    Console().print(table)
    for row in collected:
        if row.state in rows.UNSUCCESSFUL:
            tables.line(f"job {row.number} {row.state}: {row.error}")
    tables.line(f"all of it: {sweep_dir / FILE}")
    closing_report.sweep_report(sweep_dir)
    return collected


def results(collected: Sequence[Row]) -> list[str]:
    """The names of the results that some job has."""
    return list(dict.fromkeys(name for row in collected for name in row.results))


def _text(collected: Sequence[Row]) -> str:
    names = results(collected)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    columns = ("number", "state", "overrides", "optimized_metric", *names)
    writer.writerow([*columns, "seconds", "folder", "error"])
    for row in collected:
        values = [row.results.get(name) for name in names]
        head = [row.number, row.state, " ".join(row.overrides), row.value]
        writer.writerow([*head, *values, row.seconds, row.folder, row.error])
    return text.getvalue()


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _last_part(key: str, keys: Sequence[str]) -> str:
    """The last part of a dotted key; all of it if another key ends alike."""
    last = key.rpartition(".")[2]
    return key if sum(other.rpartition(".")[2] == last for other in keys) > 1 else last


def _rounded(text: str) -> str:
    """The text of a value, a number that a sampler drew with few digits."""
    try:
        return f"{float(text):.4g}" if "." in text or "e" in text else text
    except ValueError:
        return text
