"""A run's log as one CSV file, whole however often the run was cut and resumed."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from tinyflux_pl.core import files


class MetricsFile(Logger):
    """`metrics.csv` in a folder of the run: a row a call, with its step, in the file when the call returns."""

    def __init__(self, save_dir: str, folder: str = "csv") -> None:
        super().__init__()
        self._save_dir, self.folder = save_dir, folder
        self.path = Path(save_dir) / folder / "metrics.csv"
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return self.folder

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return self._save_dir

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Nothing: config.json holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row; a column that is new makes the file anew."""
        row = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        new = [name for name in row if name not in self._columns]
        if new:
            self._write([*self._columns, *new], self.rows())
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)

    def rows(self) -> list[dict[str, str]]:
        """What is in the file, as text."""
        if not self.path.is_file():
            return []
        with open(self.path, newline="") as file:
            return list(csv.DictReader(file))

    @rank_zero_only
    def continue_from(self, step: int) -> None:
        """Drop what a resumed run will write again: rows after `step`, and all of that step but training's own."""
        rows = self.rows()
        kept = [row for row in rows if int(row["step"]) < step or (int(row["step"]) == step and row.get("train/loss"))]
        if rows:
            self._write(list(rows[0]), kept)

    def _write(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.write_bytes(self.path, text.getvalue().encode())
        self._columns = columns
