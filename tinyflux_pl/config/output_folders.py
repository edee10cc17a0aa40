"""Folders that a command writes to, judged before anything is drawn, read or made."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tinyflux_pl.config.quoting import is_path
from tinyflux_pl.core.errors import ConfigError


def of_a_job(config: DictConfig, *, multirun: bool) -> Path:
    """The folder that Hydra will make for this run, or for this job of a sweep; ConfigError where it cannot."""
    keys = ("hydra.sweep.dir", "hydra.sweep.subdir") if multirun else ("hydra.run.dir",)
    try:
        parts = [str(OmegaConf.select(config, key)) for key in keys]
    except OmegaConfBaseException as error:
        what = f"cannot resolve the run's folder: {str(error).splitlines()[0]}"
        raise ConfigError(what, where=" and ".join(keys), cure="mend the ${...} in that value") from error
    for key, part in zip(keys, parts, strict=True):
        if not part.strip():
            raise ConfigError(f"{key} is empty", where=key, cure="leave it out, or name a folder")
    require(Path(*parts), keys[-1] if multirun else "run")
    return Path(*parts)


def check_job(job: Mapping[str, Any]) -> None:
    """Raise ConfigError for a place that the configuration names and that cannot be a folder to write into."""
    for key, place in _texts(job):
        if place.startswith("~") and is_path(key) and os.path.expanduser(place) == place:
            what = f"{_short(place)}: there is no such user's home"
            raise ConfigError(what, where=key, cure="write the whole path")
    for name, place in job["paths"].items():
        require(place, f"paths.{name}", written=name == "outputs")
    if job.get("output") is not None:
        require(job["output"], "output")


def _texts(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of nested plain containers."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        key = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, str):
            yield key, value
        yield from _texts(value, key)


def require(place: str | Path, key: str, *, written: bool = True) -> None:
    """Raise ConfigError unless the place is a folder, or can be made one; `written`: that this user may write to."""
    path = Path(place).absolute()
    for folder in (path, *path.parents):
        try:
            mode = os.stat(folder).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            what = f"{_short(place)} cannot be a folder: {why.lower()}"
            raise ConfigError(what, where=key, cure=f"name another folder: {_option(key)}") from error
        if not stat.S_ISDIR(mode):
            lies = "is a file, not a folder" if folder == path else f"lies below {folder}, which is a file"
            raise ConfigError(f"{_short(place)} {lies}", where=key, cure=f"name a folder: {_option(key)}")
        longest = os.pathconf(folder, "PC_NAME_MAX")  # of a part of a path, in bytes
        if any(len(os.fsencode(part)) > longest for part in path.parts):
            what = f"{_short(place)} is too long: a name may have {longest} bytes here"
            raise ConfigError(what, where=key, cure=f"name a shorter one: {_option(key)}")
        if written and (why := _refusal(folder)):
            what = f"{folder} cannot be written to: {why}"
            cure = f"give this user the right to it, or write elsewhere: {_option(key)}"
            raise ConfigError(what, where=key, cure=cure)
        return


def _refusal(folder: Path) -> str:
    """Why no file can be made in a folder, as the system says it; tried with one that has no name."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _option(key: str) -> str:
    """How another place is given for a key."""
    return {"run": "run=NAME, paths.outputs=FOLDER", "hydra.sweep.subdir": "hydra.sweep.subdir='${hydra.job.num}'"}.get(
        key, f"{key}=FOLDER"
    )


def _short(place: str | Path) -> str:
    text = str(place)
    return text if len(text) <= 120 else f"{text[:80]}... ({len(text.encode())} bytes)"
