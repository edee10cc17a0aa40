"""The folder that Hydra creates for a job: locked during training, removed if it stays empty."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from tinyflux_pl.config.schema import Train
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.rank import is_rank_zero

Recipe = Callable[[dict[str, Any]], Any]
LOCK = ".lock"  # holds the owner's process id and its machine: several may share the disk
RUN_FILES = ("csv", "samples", "skipped.jsonl", "tensorboard", "wandb", "checkpoints")
LOCKED_BY_OTHER = (errno.EAGAIN, errno.EACCES)
_recorded: set[Path] = set()  # folders in which this process began a start


def remove_empty_run_dir(recipe: Recipe) -> Recipe:
    """Decorate a recipe to remove the run's folder, even after an error, if it is empty."""

    @functools.wraps(recipe)
    def wrapped(config: dict[str, Any]) -> Any:
        is_done = False
        try:
            result = recipe(config)
            is_done = True
            return result
        finally:
            # A rank of a training that read its clock a second later has a folder of its own, which
            # stays empty; that of rank 0 holds its configuration by now.
            if is_rank_zero() or (is_done and config.get("task") == "train"):
                with suppress(FileNotFoundError):  # another rank removes the same one
                    _remove_empty(Path(config["run_dir"]), Path(config["paths"]["root"]))

    return wrapped


@contextmanager
def locked_run_dir(run_dir: Path) -> Generator[None]:
    """Lock the folder for training; ConfigError with the owner's id if another process has it.

    Rank 0 holds the lock. The system frees it when its process dies and, unlike flock, does not
    pass it to children: a worker that outlives a killed run for seconds would block the next one.
    On a file system without locks, nothing is locked.
    """
    if not is_rank_zero():
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    with _locked(run_dir / LOCK) as lock:
        with suppress(OSError):  # a full disk is reported by the first real write
            lock.truncate(0)
            lock.write(f"{os.getpid()} on {os.uname().nodename}")
            lock.flush()
        try:
            yield
        finally:
            (run_dir / LOCK).unlink(missing_ok=True)


def require_new_run(config: Train) -> None:
    """Raise ConfigError if a run that is not resumed would start in a folder with files."""
    if config.resume or not is_rank_zero():  # rank 0 is the first to write
        return
    run_dir = Path(config.run_dir)
    checkpoints = sorted((run_dir / "checkpoints").glob("[!.]*/manifest.json"))
    if checkpoints or (run_dir / "results.json").is_file():
        newest = (
            f"has checkpoints (newest: {checkpoints[-1].parent.name})"
            if checkpoints
            else "is finished"
        )
        raise ConfigError(
            f"run {config.run!r} already {newest}",
            where=config.run_dir,
            cure="continue it with resume=auto, or choose another name: run=NAME",
        )
    if configurations(run_dir):
        return
    foreign = [name for name in RUN_FILES if (run_dir / name).exists()]
    if foreign:
        raise ConfigError(
            f"the folder of run {config.run!r} holds files of no run: {', '.join(foreign[:3])}",
            where=config.run_dir,
            cure="choose another name: run=NAME",
        )


def configurations(run_dir: Path) -> dict[int, Path]:
    """Number of a start -> its configuration, from config.json, config_1.json, ..."""
    files = run_dir.glob("config*.json")
    matches = ((re.fullmatch(r"config(?:_(\d+))?\.json", path.name), path) for path in files)
    return dict(sorted((int(match[1] or 0), path) for match, path in matches if match))


def record_start(run_dir: Path) -> None:
    """Note that this process has written a start's configuration into the folder."""
    _recorded.add(run_dir)


def take_recorded_start(run_dir: Path) -> bool:
    """True once after this process recorded a start there; False for other processes' starts."""
    is_recorded = run_dir in _recorded
    _recorded.discard(run_dir)
    return is_recorded


def _locked(path: Path) -> TextIOWrapper:
    """Open and lock the file; retry if the previous owner removed it meanwhile."""
    while True:
        file = path.open("a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in LOCKED_BY_OTHER:
                return file
            file.seek(0)
            owner = file.read().strip() or "of unknown id"
            file.close()
            raise ConfigError(
                f"this run is being trained by process {owner}",
                where=str(path.parent),
                cure="wait for it, or stop it and continue with resume=auto; or choose another "
                "name: run=NAME",
            ) from error
        if _is_same_file(path, file):
            return file
        file.close()


def _is_same_file(path: Path, file: TextIOWrapper) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    return False


def _remove_empty(run_dir: Path, root: Path) -> None:
    """Remove the folder with its empty log, and empty folders above it below `root`."""
    if (run_dir / LOCK).exists():  # another process trains there, and has that log open
        return
    for log in run_dir.glob("*.log"):
        if not log.stat().st_size:
            log.unlink()
    for folder in (run_dir, *run_dir.parents):
        below = folder.is_relative_to(root) and folder != root
        if not below or (folder.is_dir() and any(folder.iterdir())):
            return
        if folder.is_dir():
            folder.rmdir()
