"""`python -m tinyflux_pl.report FOLDER`: the page of a run or of a sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tinyflux_pl.config import redact
from tinyflux_pl.core.console_log import warnings_above_bars
from tinyflux_pl.core.errors import ConfigError, TinyFluxError
from tinyflux_pl.core.printable import printable
from tinyflux_pl.report import sweep_files
from tinyflux_pl.report.write import write_run_report, write_sweep_report


@warnings_above_bars()
def main(arguments: Sequence[str] | None = None) -> int:
    """Write report.html into the folder and print its path; an exit code."""
    parser = argparse.ArgumentParser(prog="python -m tinyflux_pl.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="outputs/RUN, or the folder of a sweep")
    parser.add_argument("--baseline", help="of a sweep: the arm to compare with, as experts=none")
    chosen = parser.parse_args(arguments)
    redact.install()
    try:
        print(_write(chosen.folder, chosen.baseline))
    except TinyFluxError as error:
        print(printable(str(error)), file=sys.stderr)
        return error.exit_code
    return 0


def _write(folder: Path, baseline: str | None) -> Path:
    if not folder.is_dir():
        cure = "give the folder of a run or of a sweep: outputs/NAME"
        raise ConfigError("no such folder", where=str(folder), cure=cure)
    if sweep_files.is_sweep(folder):
        return write_sweep_report(folder, baseline)
    if baseline is not None:
        cure = "leave --baseline out, or give the folder of a sweep"
        raise ConfigError("a run has no arms", where=str(folder), cure=cure)
    if not any((folder / name).exists() for name in ("config.json", "results.json", "csv")):
        cure = "give the folder that a run wrote, with its config.json"
        raise ConfigError("neither a run nor a sweep", where=str(folder), cure=cure)
    return write_run_report(folder)


if __name__ == "__main__":
    sys.exit(main())
