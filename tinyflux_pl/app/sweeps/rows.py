"""The row of one job of a sweep: a file that the job writes atomically."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tinyflux_pl.core import files
from tinyflux_pl.core.file_lock import is_alive

FOLDER = ".jobs"  # in the sweep's folder: a file for each job that was begun
RUNNING, FINISHED, PRUNED = "running", "finished", "pruned"
FAILED, INTERRUPTED = "failed", "interrupted"
UNSUCCESSFUL = (FAILED, INTERRUPTED)


@dataclass(frozen=True)
class Row:
    """One job: its position in the sweep, its state, and its results."""

    number: int
    overrides: list[str]
    folder: str
    owner: str  # PID on HOST
    state: str = RUNNING
    seconds: float | None = None
    exit_code: int = 0
    error: str = ""
    value: float | list[float] | None = None  # of optimized_metric
    results: dict[str, float] = field(default_factory=dict)

    @classmethod
    def begun(cls, number: int, overrides: list[str], folder: str) -> Row:
        """The row of a job that this process begins."""
        return cls(number, overrides, folder, f"{os.getpid()} on {os.uname().nodename}")

    def ended(self, state: str, **values: Any) -> Row:
        """The same job at its end."""
        return replace(self, state=state, **values)

    def write(self, sweep_dir: Path) -> None:
        """Write the file of the row into the sweep's folder."""
        files.write_json(_file(sweep_dir, self.number), _without_nan(asdict(self)))


def read(sweep_dir: Path) -> list[Row]:
    """The rows of a sweep by number; a job whose process has died counts as interrupted."""
    rows = []
    for file in sorted((sweep_dir / FOLDER).glob("[0-9]*.json")):
        row = Row(**_with_nan(files.read_json(file)))
        if row.state == RUNNING and not is_alive(row.owner):
            row = row.ended(INTERRUPTED, error="its process is gone", exit_code=1)
        rows.append(row)
    return sorted(rows, key=lambda row: row.number)


def remove(sweep_dir: Path, number: int) -> None:
    """Forget an earlier attempt at a job."""
    _file(sweep_dir, number).unlink(missing_ok=True)


def _file(sweep_dir: Path, number: int) -> Path:
    return sweep_dir / FOLDER / f"{number:05d}.json"


def _without_nan(value: Any) -> Any:
    """Plain values with NaN and infinity, which JSON does not have, as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return [_without_nan(inner) for inner in value] if isinstance(value, list) else value


def _with_nan(row: dict[str, Any]) -> dict[str, Any]:
    value = row["value"]
    row["value"] = [float(v) for v in value] if isinstance(value, list) else _number(value)
    row["results"] = {name: float(number) for name, number in row["results"].items()}
    return row


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
