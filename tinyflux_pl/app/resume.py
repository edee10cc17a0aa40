"""Where a run begins: at a checkpoint, if the configuration still means the run that made it."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyflux_pl.app import report
from tinyflux_pl.app.run_folder import configurations
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.config.diff import ANOTHER_RUN, changes, drops
from tinyflux_pl.config.redact import redact_data
from tinyflux_pl.core import files
from tinyflux_pl.core.errors import ConfigError, CorruptCheckpoint, Interrupted
from tinyflux_pl.core.rank import is_rank_zero, launcher


def checkpoint_of(config: dict[str, Any]) -> directory.Checkpoint | None:
    """The checkpoint that `resume` asks for, verified and told; None for a run that begins.

    Raises ConfigError where the run cannot be continued as asked, CorruptCheckpoint where none is valid.
    """
    asked, run_dir = config["resume"], Path(config["run_dir"])
    if not asked:
        return None
    found = _newest(config, run_dir) if asked == "auto" else _named(Path(asked), run_dir)
    if found is None:
        _say(f"nothing to resume in {run_dir}: no checkpoint was written yet; starting at step 0")
        return None
    if found.step > config["steps"]:
        raise ConfigError(
            f"the checkpoint is {found.step - config['steps']} steps past the end of this run",
            where=str(found.path),
            cure=f"ask for more: steps={found.step} at least",
        )
    _require_same_run(config, found)
    _say(f"resuming {found.path} at step {found.step} of {config['steps']}")
    if found.step == config["steps"]:
        _say("nothing is left to train: only the closing evaluation is made again")
    return found


def require_same_network(checkpoint: directory.Checkpoint, parts: Any) -> None:
    """Raise CheckpointMismatch, by the header of the weights alone, where the run asks for another network."""
    import torch

    from tinyflux_pl.weights.key_diff import require_match, shapes_of

    with torch.device("meta"):
        network = parts.denoiser()
    asked = shapes_of(directory.plain_keys(network.state_dict()))
    cure = "use the model= and experts= of the run that made the checkpoint"
    require_match(asked, checkpoint.shapes(), str(checkpoint.path), cure)


def require_same_path(checkpoint: directory.Checkpoint, parts: Any, allowed: bool) -> None:
    """Raise ConfigError if the run now goes another path than the checkpoint describes.

    A path is chosen, or read from a release's scheduler: a file that may have changed since.
    """
    described = checkpoint.config.get("path")
    settings = described.get("config") if isinstance(described, dict) else None
    if allowed or not isinstance(described, dict) or not isinstance(settings, dict):
        return
    then, now = {"path": described.get("name"), **settings}, {"path": parts.path.name, **parts.path.config()}
    changed = [f"{key} {then[key]} -> {now[key]}" for key in then.keys() & now.keys() if then[key] != now[key]]
    if changed:
        raise ConfigError(
            f"this would not be the same run: the path changed (then -> now): {', '.join(sorted(changed))}",
            where=str(checkpoint.path),
            cure="bring the release's scheduler file or the path= of the run back, or go on: resume_changed=true",
        )


def require_same_data(checkpoint: directory.Checkpoint, caches: Mapping[str, str], allowed: bool) -> None:
    """Raise ConfigError if a source now holds other samples than those that the checkpoint was trained on."""
    kept = checkpoint.config.get("caches", {})
    then = kept if isinstance(kept, dict) else {}
    changed = [name for name in sorted(then.keys() | caches.keys()) if then.get(name) != caches.get(name)]
    if changed and not allowed:
        raise ConfigError(
            f"the run was trained on other samples than are now in {', '.join(changed)}",
            where=str(checkpoint.path),
            cure="bring the old data back, or go on all the same: resume_changed=true",
        )


@contextmanager
def continued_by(config: dict[str, Any]) -> Generator[None]:
    """Say, where the block is interrupted, what was saved and the command that goes on from there."""
    try:
        yield
    except Interrupted as stop:
        if not is_rank_zero():  # one rank speaks; and a launcher that saw another fail would kill it meanwhile
            sys.exit(0)
        saved = directory.list_steps(Path(config["run_dir"]) / "checkpoints")
        where = str(saved[-1]) if saved else f"{config['run_dir']}; no step was taken yet"
        raise Interrupted(stop.number, where=where, cure=command(config)) from stop


def command(config: dict[str, Any]) -> str:
    """The line that continues this run: from its newest checkpoint, or while it has none, from where it began.

    With the flags that say which configuration it is, and without what a start alone decides.
    """
    own = ("run", "resume", "resume_changed")
    words = [w for w in config.get("overrides", []) if w.partition("=")[0].lstrip("+") not in own]
    outputs, run_dir = (Path(os.path.abspath(p)) for p in (config["paths"]["outputs"], config["run_dir"]))
    inside = run_dir.is_relative_to(outputs)
    name = run_dir.relative_to(outputs) if inside else config["run"]
    saved = directory.list_steps(run_dir / "checkpoints")
    origin = "auto" if saved or not config["resume"] else config["resume"]
    folder = [] if inside else [f"hydra.run.dir={shlex.quote(str(run_dir))}"]
    ends = [*folder, f"run={shlex.quote(str(name))}", f"resume={shlex.quote(origin)}"]
    return " ".join([launcher(), *config.get("flags", []), *words, *ends])


def _newest(config: dict[str, Any], run_dir: Path) -> directory.Checkpoint | None:
    folder = run_dir / "checkpoints"
    named = any(word.partition("=")[0] == "run" for word in config.get("overrides", []))
    if not run_dir.exists() and not named:
        raise ConfigError("resume=auto of a run without a name", where=str(run_dir), cure="add run=NAME")
    found, rejected = directory.newest_valid(folder)
    for line in rejected:
        _say(f"skipped {line}")
    if found is None and rejected:
        cure = "start anew under another name: run=NAME, without resume"
        raise CorruptCheckpoint("no checkpoint of the run is valid", where=str(folder), cure=cure)
    if found is None:  # perhaps the run began at a checkpoint of another, and has none of its own yet
        asked = [then.get("resume") for _, then in _starts(run_dir, config["resume_changed"])]
        origins = [path for path in asked if path not in (None, "auto")]
        return _named(Path(origins[-1]), run_dir) if origins else None
    return found


def _named(path: Path, run_dir: Path) -> directory.Checkpoint:
    """A checkpoint of any run, from which this one may begin as long as it has no other of its own."""
    found, (own, _) = directory.read(path), directory.newest_valid(run_dir / "checkpoints")
    if own is not None and own.path.resolve() != found.path.resolve():
        raise ConfigError(
            f"this run has come to {own.path.name}; from {found.path.name} it would have two histories",
            where=str(run_dir),
            cure=f"go on with resume=auto, or give the other history a name: run=NAME resume={path}",
        )
    return found


def _require_same_run(config: dict[str, Any], found: directory.Checkpoint) -> None:
    if not is_rank_zero():
        return
    # RUN/checkpoints/step_N, of which the folder in the middle may be a link to another disk
    runs = [path.parent.parent for path in (found.path.absolute(), found.path.resolve())]
    made = next((run for run in runs if configurations(run)), runs[-1])
    kept = _in_force(made, found.step, config["resume_changed"])
    if kept is None and not config["resume_changed"]:
        raise ConfigError(
            "the run of this checkpoint has no config.json, so nobody can say that this is the same run",
            where=str(made),
            cure="go on all the same: resume_changed=true",
        )
    where, then = kept or (made, config)
    then, now = redact_data(then), json.loads(json.dumps(redact_data(config)))
    network = found.config.get("denoiser")
    dropout = drops(network if isinstance(network, dict) else {})
    changed = changes(then, now, found.step, dropout)
    report.changes(changed)
    other = [change.key for change in changed if change.effect == ANOTHER_RUN]
    if other and not config["resume_changed"]:
        raise ConfigError(
            f"this would not be the same run: {', '.join(other)} changed",
            where=str(where),
            cure="repeat the run's own choices, or go on all the same: resume_changed=true",
        )


def _in_force(run_dir: Path, step: int, lenient: bool) -> tuple[Path, dict[str, Any]] | None:
    """The configuration under which a run came to `step`: the last one that it was started with before."""
    begun = [(path, asked) for path, asked in _starts(run_dir, lenient) if asked.get("from_step", 0) < step]
    return begun[-1] if begun else None


def _starts(run_dir: Path, lenient: bool) -> list[tuple[Path, dict[str, Any]]]:
    """What the run was asked for each time it was started; what cannot be read is an error, or `lenient`, left out."""
    found = []
    for path in configurations(run_dir).values():
        try:
            asked = files.read_json(path)
            told = isinstance(asked, dict) and isinstance(asked.get("resume"), str | None)
            if not told or type(asked.get("from_step", 0)) is not int:
                raise ValueError("it does not describe the start of a run")
            found.append((path, asked))
        except (OSError, ValueError) as error:
            if not lenient:
                cure = "bring it back, or go on without it: resume_changed=true"
                raise ConfigError(f"{path.name} cannot be read: {error}", where=str(path), cure=cure) from error
    return found


def _say(line: str) -> None:
    if is_rank_zero():
        print(line)
