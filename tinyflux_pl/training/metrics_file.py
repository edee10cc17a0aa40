"""A run's metrics as one CSV file, continuous across interruptions."""

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
from tinyflux_pl.core.disk_full import disk_full_explained

TRAINING = "train/"  # prefix of the columns of training itself


class MetricsFile(Logger):
    """`metrics.csv` in a folder of the run: one row a step, on disk when `log_metrics` returns."""

    def __init__(self, save_dir: str, folder: str = "csv") -> None:
        super().__init__()
        self._save_dir = save_dir
        self.folder = folder
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
        """Do nothing: config.json has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the step's row: the last one, or a new one."""
        values = {name: float(value) for name, value in metrics.items()}
        same_row = self._last.get("step") == step
        before = self._line(self._last) if same_row else b""
        self._last = {**self._last, **values} if same_row else {"step": step, **values}
        if new := [name for name in self._last if name not in self._columns]:
            rows = self.rows()
            earlier = rows[:-1] if same_row else rows
            self._write([*self._columns, *new], [*earlier, self._last])
            return
        # One write, in place: a row only grows, so that a kill leaves either the old or the new
        # row.
        line = self._line(self._last)
        with disk_full_explained(self.path, len(line)), open(self.path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            try:
                written = os.pwrite(file.fileno(), line, size - len(before))
                # a short write on a full disk is not an error for the kernel
                if written < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                os.pwrite(file.fileno(), before, size - len(before))
                os.ftruncate(file.fileno(), size)
                raise

    def rows(self) -> list[dict[str, str]]:
        """Rows as strings. A truncated last row is ignored."""
        if not self.path.is_file():
            return []
        complete, end, _ = self.path.read_text().rpartition("\n")
        return list(csv.DictReader(io.StringIO(complete + end, newline="")))

    @rank_zero_only
    def continue_from(self, step: int) -> None:
        """Drop what a run resumed at `step` writes again: later rows, and this row's other columns.

        The values of training in the row of `step` itself were logged before the checkpoint.
        """
        rows = self.rows()
        if not rows:
            return
        remaining: list[dict[str, Any]] = [row for row in rows if int(row["step"]) < step]
        for row in rows:
            trained = {k: v for k, v in row.items() if v and k.startswith(TRAINING)}
            if int(row["step"]) == step and trained:
                remaining.append({"step": step, **trained})
        has_row = remaining and remaining[-1]["step"] == step
        self._last = remaining[-1] if has_row else {}
        self._write(list(rows[0]), remaining)

    def _line(self, row: Mapping[str, Any]) -> bytes:
        return _text([], [row], self._columns)

    def _write(self, columns: list[str], rows: Sequence[Mapping[str, Any]]) -> None:
        files.write_bytes(
            self.path, _text([dict(zip(columns, columns, strict=True))], rows, columns)
        )
        self._columns = columns


def _text(
    header: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, lineterminator="\n").writerows([*header, *rows])
    return text.getvalue().encode()
