"""The folder that Hydra makes for every job: one owner at a time, and gone again where nothing was to be left in it."""

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

from tinyflux_pl.core.errors import ConfigError

Recipe = Callable[[dict[str, Any]], int]
LOCK = ".lock"  # holds the owner's process id, and its machine: the folder may be on a disk that several see
WRITTEN = ("csv", "samples", "skipped.jsonl", "tensorboard", "wandb", "checkpoints")
TAKEN = (errno.EAGAIN, errno.EACCES)  # what the system says of a lock that another process has


def leaving_no_trace(recipe: Recipe) -> Recipe:
    """The recipe; afterwards, or after an error, the run's folder goes if nothing was put into it."""

    @functools.wraps(recipe)
    def wrapped(config: dict[str, Any]) -> int:
        try:
            return recipe(config)
        finally:
            from tinyflux_pl.core.rank import is_rank_zero

            if is_rank_zero():
                _remove_empty(Path(config["run_dir"]), Path(config["paths"]["root"]))

    return wrapped


@contextmanager
def owned(run_dir: Path) -> Generator[None]:
    """Train in the folder alone: of two processes the second has a ConfigError with the first one's id.

    The rank that writes holds it. The system frees the lock of a process that dies, and, unlike flock's, gives it
    to no child: a worker that outlives a killed run for seconds would keep the next one out. Where a file system
    knows no locks, nobody is kept out.
    """
    from tinyflux_pl.core.rank import is_rank_zero

    if not is_rank_zero():
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    with _locked(run_dir / LOCK) as lock:
        with suppress(OSError):  # a full disk: whoever needs the room will say so
            lock.truncate(0)
            lock.write(f"{os.getpid()} on {os.uname().nodename}")
            lock.flush()
        try:
            yield
        finally:
            (run_dir / LOCK).unlink(missing_ok=True)


def configurations(run_dir: Path) -> dict[int, Path]:
    """What the run was asked for each time it was started, by number: config.json, config_1.json and so on."""
    named = ((re.fullmatch(r"config(?:_(\d+))?\.json", path.name), path) for path in run_dir.glob("config*.json"))
    return dict(sorted((int(found[1] or 0), path) for found, path in named if found))


def others_in(run_dir: Path) -> list[str]:
    """Names in a folder that a run would write into, where none was started before: they are somebody else's."""
    if configurations(run_dir):
        return []
    return [name for name in WRITTEN if (run_dir / name).exists()]


def _locked(path: Path) -> TextIOWrapper:
    """The open file, locked, and still the one that has this name: the last owner may just have removed its own."""
    while True:
        file = path.open("a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in TAKEN:
                return file
            file.seek(0)
            owner = file.read().strip() or "of unknown id"
            file.close()
            raise ConfigError(
                f"this run is being trained by process {owner}",
                where=str(path.parent),
                cure="wait for it, or stop it and go on with resume=auto; another run has another name: run=NAME",
            ) from error
        if _is(path, file):
            return file
        file.close()


def _is(path: Path, file: TextIOWrapper) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    return False


def _remove_empty(run_dir: Path, root: Path) -> None:
    """The folder with its empty log, and empty folders above it, up to `root`, which stays."""
    if (run_dir / LOCK).exists():  # another process is at work there, and has that log open
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
