"""Launch numbered jobs, so that the failure of one stops no other, and CPU threads are shared."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyflux_pl.app.sweeps import rows, table
from tinyflux_pl.app.sweeps.rows import Row
from tinyflux_pl.config.redact import redact
from tinyflux_pl.core.errors import TinyFluxError
from tinyflux_pl.core.rank import is_rank_zero

PROJECT = Path(__file__).resolve().parents[3]
POLL_SECONDS = 1.0
JOBLIB, LOCAL = "JoblibLauncher", "LocalLauncher"
SWEEP_DIR = "TINYFLUX_SWEEP_DIR"  # the folder of the sweep's table, for the processes of its jobs
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class JobsFailed(TinyFluxError):
    """Jobs of a sweep that failed or were interrupted; each has reported its own error."""


def launch(sweeper: Any, jobs: Mapping[int, Sequence[str]]) -> dict[int, Row]:
    """Launch the jobs, and wait for them; returns a row for each."""
    sweep_dir = Path(str(sweeper.config.hydra.sweep.dir))
    if not is_rank_zero():
        sweeper.launcher.launch(list(jobs.values()), initial_job_idx=min(jobs))
        return {}
    sweep_dir.mkdir(parents=True, exist_ok=True)
    for number in jobs:
        rows.remove(sweep_dir, number)
    waiting = dict(jobs)
    with _environment(sweeper.config.hydra.launcher, len(jobs), sweep_dir):
        while waiting:
            try:
                for first, lines in _consecutive(waiting):
                    sweeper.launcher.launch(lines, initial_job_idx=first)
            except Exception as error:  # the launcher's own: a job's error is in its row
                print(f"the launcher lost jobs: {redact(str(error))}", file=sys.stderr)
                _wait_for_running(sweep_dir, waiting)
                begun = {row.number for row in rows.read(sweep_dir)}
                left = {n: lines for n, lines in waiting.items() if n not in begun}
                # those of submitit may wait in a queue
                is_joblib = type(sweeper.launcher).__name__ == JOBLIB
                waiting = left if is_joblib and len(left) < len(waiting) else {}
            else:
                waiting = {}
    begun = {row.number for row in rows.read(sweep_dir)}
    for number in jobs:
        if number not in begun:
            row = Row.begun(number, list(jobs[number]), "")
            row.ended(rows.FAILED, exit_code=1, error="was not begun").write(sweep_dir)
    return {row.number: row for row in table.write(sweep_dir) if row.number in jobs}


def require_success(sweep_dir: Path, collected: Sequence[Row]) -> None:
    """Raise JobsFailed if a job failed or was interrupted."""
    failed = [row for row in collected if row.state in rows.UNSUCCESSFUL]
    if failed:
        numbers = ", ".join(str(row.number) for row in failed)
        error = JobsFailed(
            f"{len(failed)} of {len(collected)} jobs did not finish: {numbers}",
            where=str(sweep_dir / table.FILE),
            cure="repair what they say, and give the same line with run=NAME resume=auto",
        )
        error.exit_code = max(row.exit_code for row in failed) or 1
        raise error


@contextmanager
def _environment(launcher: Mapping[str, Any], count: int, sweep_dir: Path) -> Generator[None]:
    """Environment of launched processes: paths of the package and the sweep, thread counts.

    joblib divides the threads by itself; submitit's local executor starts all jobs at once. Nothing
    is set that the user has set.
    """
    before = dict(os.environ)
    paths = [str(PROJECT), *filter(None, [before.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ[SWEEP_DIR] = str(sweep_dir.absolute())
    if str(launcher.get("_target_")).endswith(f".{LOCAL}"):
        share = max(1, len(os.sched_getaffinity(0)) // count)
        for name in THREADS:
            os.environ.setdefault(name, str(share))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _wait_for_running(sweep_dir: Path, numbers: Mapping[int, Any]) -> None:
    """Wait for the jobs that still run in processes of their own."""
    while any(row.state == rows.RUNNING and row.number in numbers for row in rows.read(sweep_dir)):
        time.sleep(POLL_SECONDS)


def _consecutive(jobs: Mapping[int, Sequence[str]]) -> list[tuple[int, list[list[str]]]]:
    """(first number, lines) of each run of consecutive numbers, as launchers count."""
    groups: list[tuple[int, list[list[str]]]] = []
    for number in sorted(jobs):
        if groups and number == groups[-1][0] + len(groups[-1][1]):
            groups[-1][1].append(list(jobs[number]))
        else:
            groups.append((number, [list(jobs[number])]))
    return groups
