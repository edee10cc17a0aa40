"""The state of a stage's run: new, begun, or finished as configured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyflux_pl.app.run_folder import configurations
from tinyflux_pl.app.stages.composition import PlannedStage
from tinyflux_pl.config.diff import ANOTHER_RUN, changes
from tinyflux_pl.config.redact import redact_data
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError

RESULTS = "results.json"
ENDING = ("steps", "callbacks.early_stopping")  # keys that say where a run ends


def results(folder: Path) -> dict[str, Any] | None:
    """The final measurements of a run; None if it has not ended."""
    file = folder / RESULTS
    return files.read_json(file) if file.is_file() else None


def is_finished(config: Train) -> bool:
    """True if the run has ended where `config` ends.

    ConfigError for one that ended as another run.
    """
    folder = Path(config.run_dir)
    measured, starts = results(folder), list(configurations(folder).values())
    if measured is None or not starts:
        return False
    then = redact_data(files.read_json(starts[-1]))
    now = json.loads(json.dumps(redact_data(config.plain)))
    changed = changes(then, now, measured["steps"])
    other = [change.key for change in changed if change.effect == ANOTHER_RUN]
    if other and not config.resume_changed:
        raise ConfigError(
            f"it is finished, and this would be another run: {', '.join(other)} changed",
            where=str(starts[-1]),
            cure="repeat its choices, or choose another name: run=NAME",
        )
    return not any(change.key.startswith(ENDING) for change in changed)


def require_new(stages: Sequence[PlannedStage]) -> None:
    """Raise ConfigError if a stage has begun."""
    for stage in stages:
        if _has_begun(stage.folder):
            raise ConfigError(
                f"stage {stage.name!r} has begun",
                where=str(stage.folder),
                cure="continue with resume=auto, or choose another name: run=NAME",
            )


def require_unused(name: str, later: Sequence[PlannedStage]) -> None:
    """Raise ConfigError if a later stage has begun from an unfinished one."""
    for stage in later:
        if _has_begun(stage.folder):
            raise ConfigError(
                f"stage {name!r} would train on, and {stage.name!r} has begun from what it was",
                where=str(stage.folder),
                cure="repeat the choices of before, or choose another name: run=NAME",
            )


def _has_begun(folder: Path) -> bool:
    saved = any((folder / "checkpoints").glob("[!.]*/manifest.json"))
    return saved or (folder / RESULTS).is_file()
