"""Checks of the folders and files that a command writes, before anything is read or created."""

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

FOLDERS = ("output", "engine.prompts", "export_pt")  # keys that name what a command writes
FILES = ("engine.calibrate", "engine.report", "cache.calibrate")


def job_folder(config: DictConfig, *, multirun: bool) -> Path:
    """The folder that Hydra will create for this run or job of a sweep.

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
    """Raise ConfigError for a configured output path that cannot be written."""
    texts = dict(_texts(job))
    for key, text in texts.items():
        if text.startswith("~") and is_path(key) and os.path.expanduser(text) == text:
            what = f"{_short(text)}: unknown user"
            raise ConfigError(what, where=key, cure="write the full path")
    for name, path in job["paths"].items():
        require(path, f"paths.{name}", written=name == "outputs")
    for key in FOLDERS:
        if key in texts:
            require(Path(texts[key]).expanduser(), key)
    for key in FILES:
        if key in texts:
            _require_file(Path(texts[key]).expanduser().absolute(), key)


def _require_file(path: Path, key: str) -> None:
    """Raise ConfigError unless a file can be written at `path`."""
    require(path.parent, key)
    if path.is_dir():
        what, cure = f"{_short(path)} is a folder, not a file", f"name a file: {_option(key)}"
        raise ConfigError(what, where=key, cure=cure)


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
            fault = (
                "is a file, not a folder"
                if folder == path
                else f"lies below {folder}, which is a file"
            )
            cure = f"name {'another' if key in FILES else 'a folder'}: {_option(key)}"
            raise ConfigError(f"{_short(name)} {fault}", where=key, cure=cure)
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
    return options.get(key, f"{key}={'FILE' if key in FILES else 'FOLDER'}")


def _short(path: str | Path) -> str:
    text = str(path)
    return text if len(text) <= 120 else f"{text[:80]}... ({len(text.encode())} bytes)"
