"""report.html in a run's folder or a sweep's, atomically."""

from __future__ import annotations

from pathlib import Path

from tinyflux_pl.core import files
from tinyflux_pl.report import run_files, run_page, sweep_files, sweep_page

FILE = "report.html"


def write_run_report(folder: Path, attention: bool = True) -> Path:
    """Write the page of a run; DiskFull if there is no space for it.

    `attention` compares the student's attention with Sol's, which takes some seconds.
    """
    path = folder / FILE
    files.write_bytes(path, run_page.html(run_files.read(folder), attention).encode())
    return path


def write_sweep_report(folder: Path, baseline: str | None = None) -> Path:
    """Write the page of a sweep, whatever state its jobs are in.

    ConfigError for a baseline that is no arm, DiskFull if there is no space for the page.
    """
    path = folder / FILE
    files.write_bytes(path, sweep_page.html(sweep_files.read(folder), baseline).encode())
    return path
