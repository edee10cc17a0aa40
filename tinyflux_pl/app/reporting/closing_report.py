"""The HTML report at the end of training runs and sweeps; failing to write it is no error."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyflux_pl.app.reporting import tables
from tinyflux_pl.app.run_folder import take_recorded_start
from tinyflux_pl.config.redact import redact
from tinyflux_pl.core.rank import is_rank_zero

Recipe = Callable[[dict[str, Any]], Any]
FILE = "report.html"


def with_report(recipe: Recipe) -> Recipe:
    """Decorate a recipe to write report.html at its end, even after an error, once it has started.

    A run that failed or was stopped has the page without the attention maps, which cost seconds.
    `report: false` leaves the page out.
    """

    @functools.wraps(recipe)
    def reported(config: dict[str, Any]) -> Any:
        folder = Path(config["run_dir"])
        complete = False
        try:
            result = recipe(config)
            complete = True
            return result
        finally:
            # a start that was refused has no page: the folder may be another process's
            if take_recorded_start(folder) and config.get("report") and is_rank_zero():
                _write(folder, complete)

    return reported


def sweep_report(folder: Path) -> None:
    """Write the page of a sweep of training runs, unless all of them disabled theirs."""
    from tinyflux_pl.report.sweep_files import job_folders
    from tinyflux_pl.report.write import write_sweep_report

    if any((job / FILE).is_file() for job in job_folders(folder)):
        _say(lambda: write_sweep_report(folder))


def _write(folder: Path, complete: bool) -> None:
    from tinyflux_pl.report.write import write_run_report

    _say(lambda: write_run_report(folder, attention=complete))


def _say(write: Callable[[], Path]) -> None:
    """Print one line: the path of the page, or the reason why there is none."""
    try:
        tables.line(f"report: {write()}")
    except Exception as error:  # results and errors of the runs matter more than their page
        reason = redact(f"{type(error).__name__}: {error}".splitlines()[0])
        tables.line(f"no report was written: {reason}")
