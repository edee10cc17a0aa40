"""Checks of the folders that a command writes to, before anything is drawn, read or created."""

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
    """The folder that Hydra will make for this run, or for this job of a sweep.

    ConfigError where it cannot.
    """
    keys = ("hydra.sweep.dir", "hydra.sweep.subdir") if multirun else ("hydra.run.dir",)
    try:
        parts = [str(OmegaConf.select(config, key)) for key in keys]
    except OmegaConfBaseException as error:
        what = f"cannot resolve the run's folder: {str(error).splitlines()[0]}"
        cure = "fix the ${...} in that value"
        raise ConfigError(what, where=" and ".join(keys), cure=cure) from error
    for key, part in zip(keys, parts, strict=True):
        if not part.strip():
            raise ConfigError(f"{key} is empty", where=key, cure="leave it out, or name a folder")
    require(Path(*parts), keys[-1] if multirun else "run")
    return Path(*parts)


def check_job(job: Mapping[str, Any]) -> None:
    """Raise ConfigError for a configured path that cannot be a folder to write into."""
    for key, text in _texts(job):
        if text.startswith("~") and is_path(key) and os.path.expanduser(text) == text:
            what = f"{_short(text)}: unknown user"
            raise ConfigError(what, where=key, cure="write the full path")
    for name, path in job["paths"].items():
        require(path, f"paths.{name}", written=name == "outputs")
    if job.get("output") is not None:
        require(job["output"], "output")


def _texts(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of nested plain containers."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        key = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, str):
            yield key, value
        yield from _texts(value, key)


def require(name: str | Path, key: str, *, written: bool = True) -> None:
    """Raise ConfigError unless `name` is or can become a folder; if `written`, a writable one."""
    path = Path(name).absolute()
    for folder in (path, *path.parents):
        try:
            mode = os.stat(folder).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            what = f"{_short(name)} cannot be a folder: {why.lower()}"
            raise ConfigError(
                what, where=key, cure=f"name another folder: {_option(key)}"
            ) from error
        if not stat.S_ISDIR(mode):
            lies = (
                "is a file, not a folder"
                if folder == path
                else f"lies below {folder}, which is a file"
            )
            cure = f"name a folder: {_option(key)}"
            raise ConfigError(f"{_short(name)} {lies}", where=key, cure=cure)
        longest = os.pathconf(folder, "PC_NAME_MAX")  # of a part of a path, in bytes
        if any(len(os.fsencode(part)) > longest for part in path.parts):
            what = f"{_short(name)} is too long: a name may have {longest} bytes here"
            raise ConfigError(what, where=key, cure=f"name a shorter one: {_option(key)}")
        if written and (why := _refusal(folder)):
            what = f"{folder} cannot be written to: {why}"
            cure = f"change its permissions, or write elsewhere: {_option(key)}"
            raise ConfigError(what, where=key, cure=cure)
        return


def _refusal(folder: Path) -> str:
    """The system's reason why no file can be created in a folder, tried with an unnamed file."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _option(key: str) -> str:
    """The option that names another folder for a key."""
    options = {
        "run": "run=NAME, paths.outputs=FOLDER",
        "hydra.sweep.subdir": "hydra.sweep.subdir='${hydra.job.num}'",
    }
    return options.get(key, f"{key}=FOLDER")


def _short(path: str | Path) -> str:
    text = str(path)
    return text if len(text) <= 120 else f"{text[:80]}... ({len(text.encode())} bytes)"
