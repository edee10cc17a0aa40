"""A run's log as one CSV file, whole however often the run was cut and resumed."""

from __future__ import annotations

import csv
import errno
import io
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from tinyflux_pl.core import files

TRAINING = "train/"  # what the columns of training itself begin with


class MetricsFile(Logger):
    """`metrics.csv` in a folder of the run: a row a step, in the file when `log_metrics` returns."""

    def __init__(self, save_dir: str, folder: str = "csv") -> None:
        super().__init__()
        self._save_dir, self.folder = save_dir, folder
        self.path = Path(save_dir) / folder / "metrics.csv"
        self._columns: list[str] = []
        self._last: dict[str, Any] = {}

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
        """Add values to the step's row, which is the last one or a new one."""
        found = {name: float(value) for name, value in metrics.items()}
        same = self._last.get("step") == step
        before = self._line(self._last) if same else b""
        self._last = {**self._last, **found} if same else {"step": step, **found}
        if new := [name for name in self._last if name not in self._columns]:
            rows = self.rows()
            self._write([*self._columns, *new], [*(rows[:-1] if same else rows), self._last])
            return
        # One call, in place: a row that grew by cells is longer than it was, so a kill leaves the one or the other.
        line = self._line(self._last)
        with files.disk_full_explained(self.path, len(line)), open(self.path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            try:
                written = os.pwrite(file.fileno(), line, size - len(before))
                if written < len(line):  # the kernel writes what fits, and calls that no error
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                os.pwrite(file.fileno(), before, size - len(before))
                os.ftruncate(file.fileno(), size)
                raise

    def rows(self) -> list[dict[str, str]]:
        """What is in the file, as text; a last row without its end, which a kill or a full disk has torn, is none."""
        if not self.path.is_file():
            return []
        whole, end, _ = self.path.read_text().rpartition("\n")
        return list(csv.DictReader(io.StringIO(whole + end, newline="")))

    @rank_zero_only
    def continue_from(self, step: int) -> None:
        """Drop what a run resumed at `step` writes again: later rows, and in its own all but training's values."""
        rows = self.rows()
        if not rows:
            return
        kept: list[dict[str, Any]] = [row for row in rows if int(row["step"]) < step]
        for row in rows:
            trained = {name: value for name, value in row.items() if value and name.startswith(TRAINING)}
            if int(row["step"]) == step and trained:
                kept.append({"step": step, **trained})
        self._last = kept[-1] if kept and kept[-1]["step"] == step else {}
        self._write(list(rows[0]), kept)

    def _line(self, row: Mapping[str, Any]) -> bytes:
        return _text([], [row], self._columns)

    def _write(self, columns: list[str], rows: Sequence[Mapping[str, Any]]) -> None:
        files.write_bytes(self.path, _text([dict(zip(columns, columns, strict=True))], rows, columns))
        self._columns = columns


def _text(header: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, lineterminator="\n").writerows([*header, *rows])
    return text.getvalue().encode()
