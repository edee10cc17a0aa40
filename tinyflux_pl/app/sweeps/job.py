"""One job of a sweep: writes its row at its start and end, and updates the table."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyflux_pl.app.sweeps import rows, table
from tinyflux_pl.config import redact
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import DiskFull, Interrupted, Pruned, TinyFluxError
from tinyflux_pl.core.rank import is_rank_zero

RESULTS = "results.json"
# numbers of results.json that the table shows
COLUMNS = ("validation_loss", "prompt_accuracy", "prompt_accuracy_held_out", "images_per_second")


@dataclass
class Outcome:
    """The result of a job's recipe, to be set inside `recorded`."""

    value: Any = None


@contextmanager
def recorded(
    sweep_dir: Path, number: int, overrides: Sequence[str], folder: Path
) -> Generator[Outcome]:
    """Record the job around its recipe; whatever the block raises is recorded and raised.

    Of several ranks, rank 0 records. A number that is no bool counts as the recipe's metric if it
    is a float, as its exit code if it is an int.
    """
    outcome = Outcome()
    if not is_rank_zero():
        yield outcome
        return
    row = rows.Row.begun(number, [redact.redact(line) for line in overrides], str(folder))
    started = time.perf_counter()
    before = _time_of(folder / RESULTS)
    _publish(row, sweep_dir)
    state, error = rows.INTERRUPTED, ""  # by whatever is no Exception: a second Ctrl-C
    exit_code = 1
    try:
        yield outcome
        exit_code = outcome.value if type(outcome.value) is int else 0
        state = rows.FAILED if exit_code else rows.FINISHED
    except Pruned as stop:
        state, error, exit_code, outcome.value = rows.PRUNED, stop.what, 0, stop.value
        raise
    except Interrupted as stop:
        error, exit_code = stop.what, stop.exit_code
        raise
    except Exception as failure:
        has_message = isinstance(failure, TinyFluxError)
        state, exit_code = rows.FAILED, failure.exit_code if has_message else 1
        text = failure.what if has_message else f"{type(failure).__name__}: {failure}"
        error = text if has_message else text.splitlines()[0]
        raise
    finally:
        row = row.ended(
            state,
            seconds=round(time.perf_counter() - started, 1),
            exit_code=exit_code,
            error=redact.redact(error),
            value=_metric(outcome.value),
            results=_results(folder / RESULTS, before),
        )
        _publish(row, sweep_dir)


def _publish(row: rows.Row, sweep_dir: Path) -> None:
    """Write the row and the table; a disk error does not fail the job."""
    try:
        row.write(sweep_dir)
        table.write(sweep_dir)
    except (OSError, DiskFull) as failure:
        line = f"job {row.number}: the sweep's table could not be written: {failure}"
        print(redact.redact(line), file=sys.stderr)


def _metric(value: Any) -> float | list[float] | None:
    return value if isinstance(value, float | list) else None


def _results(file: Path, before: int | None) -> dict[str, float]:
    """The numbers that the job itself has written."""
    if not file.is_file() or _time_of(file) == before:
        return {}
    results = files.read_object(file)
    pairs = ((name, results.get(name)) for name in COLUMNS)
    return {name: float(value) for name, value in pairs if value is not None}


def _time_of(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.is_file() else None
