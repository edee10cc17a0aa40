"""The readable files of a run's folder; missing ones are noted."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyflux_pl.config.redact import redact, redact_data
from tinyflux_pl.core import files, fingerprint
from tinyflux_pl.core.errors import TinyFluxError
from tinyflux_pl.report import metrics_table
from tinyflux_pl.report.curve import Curve

CONFIGURATION = re.compile(r"config(?:_(\d+))?\.json")
SHEET = re.compile(r"step_(\d{1,12})\.png")
CSV_FOLDER = "csv"
LOG_LINES, LOG_BYTES = 60, 64 * 2**10
FINISHED, RUNNING, UNFINISHED = "finished", "running", "not finished"


@dataclass(frozen=True)
class SavedStep:
    """A checkpoint of the run: its folder, its step and the hash that identifies its weights."""

    path: Path
    step: int
    hash: str
    num_bytes: int


@dataclass
class RunFiles:
    """A run's folder. `starts` are its configurations in order; `notes` name missing files."""

    folder: Path
    starts: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    sheets: dict[int, Path] = field(default_factory=dict)
    checkpoints: list[SavedStep] = field(default_factory=list)
    log: str = ""
    state: str = UNFINISHED
    notes: list[str] = field(default_factory=list)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the newest start."""
        return self.starts[-1] if self.starts else {}

    @property
    def name(self) -> str:
        """The run's name: the last two parts of its folder for a job of a sweep."""
        resolved = self.folder.absolute()
        is_job = resolved.name.isdigit()
        return f"{resolved.parent.name} / {resolved.name}" if is_job else resolved.name

    @property
    def step(self) -> int:
        """The last step that anything in the folder speaks of."""
        logged = [int(curve.steps[-1]) for curve in self.curves.values() if len(curve)]
        return max([*logged, *self.sheets, *(c.step for c in self.checkpoints), 0])

    @property
    def experts(self) -> list[str]:
        """The names of its experts."""
        node = self.config.get("experts")
        return sorted(map(str, node)) if isinstance(node, Mapping) else []

    @property
    def overrides(self) -> list[str]:
        """The overrides of its newest start, as they were typed."""
        lines = self.config.get("overrides")
        return [str(line) for line in lines] if isinstance(lines, list) else []

    def get(self, *keys: str) -> Any:
        """A value of the configuration, None where there is none."""
        node: Any = self.config
        for key in keys:
            node = node.get(key) if isinstance(node, Mapping) else None
        return node


def read(folder: Path) -> RunFiles:
    """Read a run's folder; damaged or missing files never raise."""
    run = RunFiles(folder)
    run.starts = _configurations(run)
    run.results = _object(run, "results.json", "no results.json: the run did not reach its end")
    run.environment = {**_object(run, "provenance.json"), **_object(run, "environment.json")}
    if not run.environment:
        run.notes.append("no environment.json: versions and commit are not known")
    csv_folder = run.get("logger", "csv", "folder")
    name = csv_folder if isinstance(csv_folder, str) and "/" not in csv_folder else CSV_FOLDER
    run.curves, notes = metrics_table.read(folder / name / "metrics.csv")
    run.notes += notes
    run.sheets = _sheets(folder / "samples")
    if not run.sheets:
        run.notes.append("no previews in samples/")
    run.checkpoints = _checkpoints(run)
    run.log = _log(folder)
    run.state = _state(run)
    return run


def _configurations(run: RunFiles) -> list[dict[str, Any]]:
    matches = ((CONFIGURATION.fullmatch(path.name), path) for path in run.folder.iterdir())
    numbered = sorted((int(match[1] or 0), path.name) for match, path in matches if match)
    read_ones = [_object(run, name) for _, name in numbered]
    if not numbered:
        run.notes.append("no config.json: the configuration is not known")
    return [config for config in read_ones if config]


def _object(run: RunFiles, name: str, absent: str = "") -> dict[str, Any]:
    """A JSON object of the folder, redacted; empty, with a note, where it cannot be read."""
    try:
        return dict(redact_data(files.read_object(run.folder / name)))
    except FileNotFoundError:
        run.notes += [absent] if absent else []
    except (OSError, TinyFluxError, RecursionError) as error:
        run.notes.append(f"{name} cannot be read: {str(error).splitlines()[0]}")
    return {}


def _sheets(folder: Path) -> dict[int, Path]:
    matches = ((SHEET.fullmatch(path.name), path) for path in sorted(folder.glob("step_*.png")))
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def _checkpoints(run: RunFiles) -> list[SavedStep]:
    """Checkpoints by their manifests alone: hashing gigabytes is extract.py doctor=true's work."""
    saved = []
    for manifest in sorted((run.folder / "checkpoints").glob("[!.]*/manifest.json")):
        try:
            content = files.read_sealed(manifest)
            size = sum(f.stat().st_size for f in manifest.parent.iterdir() if f.is_file())
            digest = fingerprint.hash_json(content["files"])[:12]
            saved.append(SavedStep(manifest.parent, int(content["step"]), digest, size))
        except (OSError, ValueError, KeyError, TypeError) as error:
            run.notes.append(f"checkpoint {manifest.parent.name} cannot be read: {error}")
    if not saved:
        run.notes.append("no checkpoint: nothing can be drawn or resumed from this folder")
    return sorted(saved, key=lambda one: one.step)


def _log(folder: Path) -> str:
    """The end of the run's log, redacted."""
    for path in filter(Path.is_file, sorted(folder.glob("*.log"))):
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return redact("\n".join(lines[-LOG_LINES:]))
    return ""


def _state(run: RunFiles) -> str:
    steps, planned = run.results.get("steps"), run.config.get("steps")
    if isinstance(steps, int) and (not isinstance(planned, int) or steps >= planned):
        return FINISHED
    return RUNNING if _is_locked(run.folder / ".lock") else UNFINISHED


def _is_locked(lock: Path) -> bool:
    """True if the process that the lock names lives on this machine."""
    try:
        owner = re.fullmatch(r"(\d+) on (.+)", lock.read_text().strip())
        if owner is None or owner[2] != os.uname().nodename:
            return False
        os.kill(int(owner[1]), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True
