"""YAML files that inherit from others by `_base_`: merged in order, the file itself last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tinyflux_pl.core.errors import ConfigError

BASE = "_base_"
MAX_BYTES = 2**20
MAX_FILES = 64


def read_inherited(file: Path) -> dict[str, Any]:
    """Read a file and those that it names in `_base_`, by paths relative to it.

    Later files win over earlier ones, the file itself over all; mappings are merged, lists and
    values replaced. Raises ConfigError for a circle of files, one that is missing or no mapping,
    an absolute path, and more than MAX_FILES files.
    """
    return _Reader().read(file, ())


class _Reader:
    def __init__(self) -> None:
        self._count = 0

    def read(self, file: Path, through: tuple[Path, ...]) -> dict[str, Any]:
        path = file.resolve()
        if path in through:
            chain = " -> ".join(p.name for p in (*through[through.index(path) :], path))
            cure = f"take one {BASE} of the circle out"
            raise ConfigError(f"{BASE} goes in a circle: {chain}", where=str(path), cure=cure)
        self._count += 1
        if self._count > MAX_FILES:
            cure = "name fewer bases"
            raise ConfigError(f"more than {MAX_FILES} files", where=str(through[0]), cure=cure)
        content = _mapping(path, through)
        bases = content.pop(BASE, None) or []
        merged: dict[str, Any] = {}
        listed = bases if isinstance(bases, list) else [bases]
        for base in listed:
            if not isinstance(base, str) or Path(base).is_absolute():
                cure = f"{BASE}: a path relative to the file, or a list of such paths"
                raise ConfigError(f"{BASE} names {base!r}", where=str(path), cure=cure)
            merged = _merged(merged, self.read(path.parent / base, (*through, path)))
        return _merged(merged, content)


def _mapping(path: Path, through: tuple[Path, ...]) -> dict[str, Any]:
    where = f"{path}{f', named by {through[-1].name}' if through else ''}"
    if not path.is_file():
        raise ConfigError("no such file", where=where, cure=f"correct the path or {BASE}")
    if path.stat().st_size > MAX_BYTES:
        what = f"{path.stat().st_size:,} bytes, more than {MAX_BYTES:,}"
        raise ConfigError(what, where=where, cure="name a file of settings")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OmegaConfBaseException, YAMLError, OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"not YAML: {reason}", where=where, cure="correct the file") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError("not a mapping of names", where=where, cure="write key: value")
    return dict(content)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merged(old, value) if both else value
    return merged
