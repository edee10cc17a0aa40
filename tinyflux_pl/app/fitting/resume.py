"""Resumption: the checkpoint that a run continues from, and checks that it is the same run."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.reporting import report
from tinyflux_pl.app.run_folder import configurations
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.directory import Checkpoint
from tinyflux_pl.config.diff import ANOTHER_RUN, changes, has_dropout
from tinyflux_pl.config.redact import redact_data
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError, CorruptCheckpoint, Interrupted
from tinyflux_pl.core.rank import is_rank_zero, launcher


def checkpoint_to_continue(config: Train) -> Checkpoint | None:
    """The verified checkpoint that `resume` names; None for a run that starts at step 0.

    Raises ConfigError if it cannot be continued as configured, CorruptCheckpoint if none is valid.
    """
    if not config.resume:
        return None
    run_dir = Path(config.run_dir)
    newest = config.resume == "auto"
    checkpoint = (
        _newest(config, run_dir) if newest else _checkpoint_at(Path(config.resume), run_dir)
    )
    if checkpoint is None:
        _print(f"nothing to resume in {run_dir}: no checkpoint yet; starting at step 0")
        return None
    if checkpoint.step > config.steps:
        raise ConfigError(
            f"the checkpoint is {checkpoint.step - config.steps} steps past the end of this run",
            where=str(checkpoint.path),
            cure=f"use at least steps={checkpoint.step}",
        )
    _require_same_run(config, checkpoint)
    _print(f"resuming {checkpoint.path} at step {checkpoint.step} of {config.steps}")
    if checkpoint.step == config.steps:
        _print("no step is left to train: only the final evaluation runs again")
    return checkpoint


def require_same_network(checkpoint: Checkpoint, parts: Parts[Train]) -> None:
    """Raise CheckpointMismatch if the run's network differs from the header of the weights."""
    import torch

    from tinyflux_pl.weights.key_diff import require_match, shapes_of

    with torch.device("meta"):
        network = parts.student()
    saved = parts.method.saved(network)
    saved_tensors = {name: tensor for name, tensor in network.state_dict().items() if name in saved}
    expected = shapes_of(directory.plain_keys(saved_tensors))
    cure = "use the model=, experts= and method= of the run that made the checkpoint"
    require_match(expected, checkpoint.shapes(), str(checkpoint.path), cure)


def require_same_path(checkpoint: Checkpoint, parts: Parts[Train]) -> None:
    """Raise ConfigError if the run's path differs from the checkpoint's.

    A path may come from a release's scheduler: a file that may have changed since.
    """
    described = checkpoint.config.get("path")
    settings = described.get("config") if isinstance(described, dict) else None
    if parts.config.resume_changed or not isinstance(described, dict):
        return
    if not isinstance(settings, dict):
        return
    then = {"path": described.get("name"), **settings}
    now = {"path": parts.path.name, **parts.path.config()}
    changed = [
        f"{key} {then[key]} -> {now[key]}"
        for key in sorted(then.keys() & now.keys())
        if then[key] != now[key]
    ]
    if changed:
        raise ConfigError(
            f"another run: the path changed (then -> now): {', '.join(changed)}",
            where=str(checkpoint.path),
            cure="restore the release's scheduler file or the run's path=, "
            "or continue all the same: resume_changed=true",
        )


def require_same_data(checkpoint: Checkpoint, caches: Mapping[str, str], allowed: bool) -> None:
    """Raise ConfigError if a source's samples or encodings differ from the checkpoint's.

    `caches` are fingerprints by source; `allowed` skips the check.
    """
    stored = checkpoint.config.get("caches", {})
    then = stored if isinstance(stored, dict) else {}
    names = sorted(then.keys() | caches.keys())
    changed = [name for name in names if then.get(name) != caches.get(name)]
    if changed and not allowed:
        raise ConfigError(
            f"the run was trained on other samples than are now in {', '.join(changed)}",
            where=str(checkpoint.path),
            cure="restore the old data, or continue all the same: resume_changed=true",
        )


@contextmanager
def interruption_explained(config: Train) -> Generator[None]:
    """Add the saved step and the command that continues the run to an Interrupted error."""
    try:
        yield
    except Interrupted as stop:
        if not is_rank_zero():  # only rank 0 reports; an error here would make a launcher kill it
            sys.exit(0)
        saved = directory.list_steps(Path(config.run_dir) / "checkpoints")
        where = str(saved[-1]) if saved else f"{config.run_dir}; no step was taken yet"
        raise Interrupted(stop.number, where=where, cure=command(config)) from stop


def command(config: Train) -> str:
    """The command that continues this run from its newest checkpoint.

    Without one, it starts where the run started. Flags that choose the configuration are kept;
    keys that concern a single start are not.
    """
    start_only = ("run", "resume", "resume_changed")
    lines = config.overrides
    remaining = [line for line in lines if line.partition("=")[0].lstrip("+") not in start_only]
    outputs = Path(os.path.abspath(config.paths.outputs))
    run_dir = Path(os.path.abspath(config.run_dir))
    inside = run_dir.is_relative_to(outputs)
    name = run_dir.relative_to(outputs) if inside else config.run
    saved = directory.list_steps(run_dir / "checkpoints")
    origin = "auto" if saved or not config.resume else config.resume
    folder = [] if inside else [f"hydra.run.dir={shlex.quote(str(run_dir))}"]
    ending = [*folder, f"run={shlex.quote(str(name))}", f"resume={shlex.quote(origin)}"]
    return " ".join([launcher(), *config.flags, *remaining, *ending])


def _newest(config: Train, run_dir: Path) -> Checkpoint | None:
    """The newest valid checkpoint; without any, the one that the run started from."""
    folder = run_dir / "checkpoints"
    has_name = any(line.partition("=")[0] == "run" for line in config.overrides)
    if not run_dir.exists() and not has_name:
        what = "resume=auto needs the name of the run"
        raise ConfigError(what, where=str(run_dir), cure="add run=NAME")
    checkpoint, rejected = directory.newest_valid(folder)
    for line in rejected:
        _print(f"skipped {line}")
    if checkpoint is None and rejected:
        cure = "start again under another name: run=NAME, without resume"
        what = "no checkpoint of the run is valid"
        raise CorruptCheckpoint(what, where=str(folder), cure=cure)
    if checkpoint is not None:
        return checkpoint
    starts = _start_configurations(run_dir, config.resume_changed)
    origins = [then.get("resume") for _, then in starts]
    origins = [path for path in origins if path not in (None, "auto")]
    return _checkpoint_at(Path(str(origins[-1])), run_dir) if origins else None


def _checkpoint_at(path: Path, run_dir: Path) -> Checkpoint:
    """A checkpoint of any run; ConfigError if this run has already progressed from another one."""
    checkpoint = directory.read(path)
    newest, _ = directory.newest_valid(run_dir / "checkpoints")
    if newest is not None and newest.path.resolve() != checkpoint.path.resolve():
        raise ConfigError(
            f"this run is already at {newest.path.name}; "
            f"starting from {checkpoint.path.name} would give it two histories",
            where=str(run_dir),
            cure=f"use resume=auto, or name the other history: run=NAME resume={path}",
        )
    return checkpoint


def _require_same_run(config: Train, checkpoint: Checkpoint) -> None:
    """Raise ConfigError if a changed key makes it another run; print all changes."""
    if not is_rank_zero():
        return
    # RUN/checkpoints/step_N; the folder in the middle may be a link to another disk
    paths = (checkpoint.path.absolute(), checkpoint.path.resolve())
    runs = [path.parent.parent for path in paths]
    origin = next((run for run in runs if configurations(run)), runs[-1])
    stored = _configuration_at(origin, checkpoint.step, config.resume_changed)
    if stored is None and not config.resume_changed:
        raise ConfigError(
            "the run of this checkpoint has no config.json to compare with",
            where=str(origin),
            cure="continue all the same: resume_changed=true",
        )
    where, then = stored or (origin, config.plain)
    now = json.loads(json.dumps(redact_data(config.plain)))
    described = {key: checkpoint.config.get(key) for key in ("denoiser", "method")}
    dropout = has_dropout(described)
    changed = changes(redact_data(then), now, checkpoint.step, dropout)
    report.changes(changed)
    other = [change.key for change in changed if change.effect == ANOTHER_RUN]
    if other and not config.resume_changed:
        raise ConfigError(
            f"this would be another run: {', '.join(other)} changed",
            where=str(where),
            cure="repeat the run's choices, or continue all the same: resume_changed=true",
        )


def _configuration_at(
    run_dir: Path, step: int, lenient: bool
) -> tuple[Path, dict[str, Any]] | None:
    """File and configuration of the last start before `step`."""
    starts = _start_configurations(run_dir, lenient)
    before = [(path, then) for path, then in starts if then.get("from_step", 0) < step]
    return before[-1] if before else None


def _start_configurations(run_dir: Path, lenient: bool) -> list[tuple[Path, dict[str, Any]]]:
    """The configurations of all starts; `lenient` skips unreadable ones instead of raising."""
    starts = []
    for path in configurations(run_dir).values():
        try:
            then = files.read_json(path)
            if not isinstance(then, dict) or not isinstance(then.get("resume"), str | None):
                raise ValueError("it is not the configuration of a run")
            if type(then.get("from_step", 0)) is not int:
                raise ValueError("from_step is not an integer")
            starts.append((path, then))
        except (OSError, ValueError) as error:
            if not lenient:
                what = f"{path.name} cannot be read: {error}"
                cure = "restore it, or continue without it: resume_changed=true"
                raise ConfigError(what, where=str(path), cure=cure) from error
    return starts


def _print(line: str) -> None:
    if is_rank_zero():
        print(line)
