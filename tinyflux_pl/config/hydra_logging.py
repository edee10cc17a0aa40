"""Allowlist for Hydra's logging nodes: logging.config can build, import and open anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tinyflux_pl.core.errors import ConfigError

NODES = ("job_logging", "hydra_logging")
SECTIONS = ("version", "disable_existing_loggers", "incremental", "root", "loggers")
FORMATTERS = ("logging.Formatter", "colorlog.ColoredFormatter")
FILES = ("logging.FileHandler", "logging.handlers.RotatingFileHandler")
HANDLERS = (*FILES, "logging.NullHandler", "logging.StreamHandler", "rich.logging.RichHandler")
# what may be built in each section: a formatter's class is called with a format, which for a file
# would be its name
BUILT = {"formatters": FORMATTERS, "handlers": HANDLERS, "filters": ()}
CLASS = ("class", "()")
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
ADDED_TO = ("a", "at", "a+")
# a log lies in the folder of its run, under a plain name
_LOG = re.compile(
    r"\$\{hydra[.:](?:runtime\.output_dir|run\.dir|sweep\.dir)\}/(.*\.log)", re.DOTALL
)
_PLAIN_NAME = re.compile(r"[^/\\\x00\n]+")


def check(node: Any, raw: Any, where: str) -> None:
    """Raise ConfigError unless every part of a resolved logging node is one that is listed here.

    `raw` is the same node before its interpolations are resolved.
    """
    for section, value in node.items() if isinstance(node, Mapping) else ():
        key = f"{where}.{section}"
        if section in BUILT:
            for name, part in (value or {}).items():
                _check_part(part, BUILT[section], f"{key}.{name}")
                _check_file(part, _get(raw, section, name), f"{key}.{name}")
        elif section not in SECTIONS:
            cure = f"one of {', '.join((*SECTIONS, *BUILT))}"
            raise ConfigError(f"logging has no {section!r}", where=key, cure=cure)
        for inner, text in _texts(value, key):
            if "://" in text and text.partition("://")[0] in ("ext", "cfg") and text not in STREAMS:
                cure = f"use {' or '.join(STREAMS)}"
                raise ConfigError(f"logging may not import {text}", where=inner, cure=cure)


def log_name(raw: Any, resolved: Any) -> str | None:
    """The plain name of a log in the folder of its run, as written in `raw`.

    None for any other file.
    """
    if not isinstance(raw, str) or not isinstance(resolved, str) or not _LOG.fullmatch(raw):
        return None
    folder = raw[: raw.index("}/") + 2]
    name = resolved.rpartition("/")[2]
    plain = _PLAIN_NAME.fullmatch(name) and name.endswith(".log") and "/" not in raw[len(folder) :]
    return f"{folder}{name}" if plain else None


def _check_part(part: Any, classes: tuple[str, ...], where: str) -> None:
    if not isinstance(part, Mapping):
        return
    for key, value in part.items():
        if key in CLASS and value not in classes:
            cure = f"one of {', '.join(classes)}" if classes else "a filter has a name alone"
            raise ConfigError(
                f"logging may not build {value!r} here", where=f"{where}.{key}", cure=cure
            )
        if key == ".":
            what = "logging may not set attributes of what it builds"
            raise ConfigError(what, where=f"{where}.{key}", cure="leave it out")
        if key == "style" and value != "%":
            what = "a format may not walk through objects: style may be % alone"
            raise ConfigError(what, where=f"{where}.{key}", cure="write %(message)s and the like")
        if key == "mode" and value not in ADDED_TO:
            what = f"a log may not replace a file: mode {value!r}"
            raise ConfigError(what, where=f"{where}.{key}", cure="leave it out: lines are added")


def _check_file(part: Any, raw: Any, where: str) -> None:
    """Require a valid file name for a file handler, and none for any other."""
    if not isinstance(part, Mapping) or part.get("filename") is None:
        return
    if log_name(_get(raw, "filename"), part["filename"]) is None:
        what = (
            f"logging may not write to {part['filename']!r}: with a format of its own that could "
            "be a program"
        )
        cure = "filename: ${hydra.runtime.output_dir}/NAME.log, in the folder of the run"
        raise ConfigError(what, where=f"{where}.filename", cure=cure)


def _texts(node: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, str):
        yield where, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(value, f"{where}.{key}")
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _texts(value, f"{where}.{index}")


def _get(node: Any, *keys: str) -> Any:
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node
