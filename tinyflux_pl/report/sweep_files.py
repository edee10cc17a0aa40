"""The jobs of a sweep's folder: sweep.csv where it lies, and each job's own folder."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tinyflux_pl.config.redact import redact
from tinyflux_pl.report import run_files
from tinyflux_pl.report.run_files import RunFiles

TABLE = "sweep.csv"
MAX_JOBS = 256
MAX_BYTES = 16 * 2**20
IGNORED = ("run", "run_dir", "resume", "preflight", "report", "logger")
RESULTS = {  # result -> (label, True if less is better)
    "validation_loss": ("validation loss", True),
    "prompt_accuracy": ("accuracy, seen", False),
    "prompt_accuracy_held_out": ("accuracy, held out", False),
}


@dataclass(frozen=True)
class Job:
    """A job: its number, its folder's files, its state and the overrides that it was given."""

    number: int
    run: RunFiles
    state: str
    overrides: dict[str, str]
    seconds: float | None
    error: str = ""

    @property
    def seed(self) -> int | None:
        """The seed of its configuration."""
        seed = self.run.config.get("seed")
        return seed if isinstance(seed, int) else None

    def result(self, name: str) -> float | None:
        """A number of its results.json."""
        value = self.run.results.get(name)
        return (
            float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        )


@dataclass
class SweepFiles:
    """A sweep's folder. `swept` are the keys whose value is not the same in all jobs."""

    folder: Path
    jobs: list[Job] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.absolute().name

    @property
    def swept(self) -> list[str]:
        """Keys in the order of the command line, the seed last."""
        keys = list(dict.fromkeys(key for job in self.jobs for key in job.overrides))
        differing = [k for k in keys if len({job.overrides.get(k) for job in self.jobs}) > 1]
        return sorted(differing, key=lambda key: key == "seed")


def is_sweep(folder: Path) -> bool:
    """True for a folder of jobs: it has their table, or two folders or more that are runs."""
    return (folder / TABLE).is_file() or len(job_folders(folder)) > 1


def job_folders(folder: Path) -> list[Path]:
    """The folders of runs directly below, by number and then by name."""
    runs = [
        path
        for path in folder.iterdir()
        if path.is_dir() and ((path / "config.json").is_file() or (path / "results.json").is_file())
    ]
    return sorted(runs, key=lambda path: (not path.name.isdigit(), path.name.zfill(12)))


def read(folder: Path) -> SweepFiles:
    """Read every job of a sweep; what is missing becomes a note."""
    sweep = SweepFiles(folder)
    rows = _rows(sweep)
    folders = job_folders(folder)
    if len(folders) > MAX_JOBS:
        sweep.notes.append(f"{MAX_JOBS} of {len(folders)} jobs are read")
    for order, path in enumerate(folders[:MAX_JOBS]):
        row = rows.pop(path.name, {})
        sweep.jobs.append(_job(path, row, order))
    for name, row in rows.items():
        state, error = row.get("state", "unknown"), row.get("error", "")
        sweep.notes.append(f"job {name} left no folder: {state} {error}".rstrip())
    for job in sweep.jobs:
        lines = [line for line in job.run.notes if "results.json" in line or "cannot" in line]
        lines += [job.error] if job.error else []
        sweep.notes += [f"job {job.number} ({job.state}): {line}" for line in lines]
    if not sweep.jobs:
        sweep.notes.append("no job has left a folder")
    return sweep


def _job(path: Path, row: Mapping[str, str], order: int) -> Job:
    run = run_files.read(path)
    number = int(path.name) if path.name.isdigit() else order
    seconds = run.results.get("seconds", _number(row.get("seconds")))
    return Job(
        number,
        run,
        row.get("state") or run.state,
        _overrides(run, row),
        seconds if isinstance(seconds, int | float) else None,
        redact(row.get("error") or ""),
    )


def _overrides(run: RunFiles, row: Mapping[str, str]) -> dict[str, str]:
    lines = run.overrides
    if not lines:
        try:
            lines = shlex.split(row.get("overrides") or "")
        except ValueError:
            lines = []
    pairs = (str(line).lstrip("+~").partition("=") for line in lines)
    return {key: value for key, _, value in pairs if key.partition(".")[0] not in IGNORED}


def _rows(sweep: SweepFiles) -> dict[str, dict[str, str]]:
    """Name of a job's folder -> its row of sweep.csv."""
    path = sweep.folder / TABLE
    if not path.is_file():
        sweep.notes.append(f"no {TABLE}: the jobs are read from their folders alone")
        return {}
    with path.open("rb") as file:
        content = file.read(MAX_BYTES).decode("utf-8", "replace").replace("\0", "")
    complete, end, _ = content.rpartition("\n")
    try:
        rows = list(csv.DictReader(io.StringIO(complete + end, newline="")))
    except csv.Error as error:
        sweep.notes.append(f"{TABLE} cannot be read: {error}")
        return {}
    return {Path(row.get("folder") or row.get("number") or "").name: row for row in rows}


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
