"""An index of a folder's files, so that a later start opens only new and changed ones."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

from tinyflux_pl.core import fingerprint, sealed_file

VERSION = 4  # since 4 sizes are those of upright pictures, of a TIFF too
RECENT_NS = 2_000_000_000  # a file changed so lately may change again within one tick of its clock
MAX_VALUE = 4096  # characters of a text that is stored

Identity = tuple[int, int, int, int]  # inode, bytes, and times of the last change in nanoseconds


def identity(path: str) -> Identity | None:
    """The identity of a regular file; None for a link, a folder and a file that is not there."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class FileIndex:
    """Values by file below `root`, each valid while the file's identity is the same.

    `reader` is plain data that decides what is read of a file; an index of another reader or of
    another folder counts as empty. Without a file values last for this process alone.
    """

    def __init__(self, file: Path | None, root: Path, reader: Any) -> None:
        self._file = file
        self._source = [VERSION, str(root), json.loads(fingerprint.canonical(reader))]
        self._values: dict[str, list[Any]] = self._read()
        self._used: set[str] = set()
        self._changed = False

    def value(self, name: str, current: Identity | None) -> Any | None:
        """The value of an unchanged file; None if it has to be read."""
        stored = self._values.get(name)
        if stored is None or current is None or tuple(stored[0]) != current:
            return None
        self._used.add(name)
        return stored[1]

    def add(self, name: str, before: Identity | None, value: Any) -> None:
        """Store the value of a file whose identity was `before` when it was opened."""
        if before is None or max(before[2:]) > time.time_ns() - RECENT_NS:
            return
        if isinstance(value, str) and len(value) > MAX_VALUE:
            return
        self._values[name] = [list(before), value]
        self._used.add(name)
        self._changed = True

    def save(self) -> None:
        """Write the file if a value is new; those of files that were not asked for go."""
        if self._file is None or not self._changed:
            return
        valid = {name: self._values[name] for name in sorted(self._used)}
        text = json.dumps([self._source, valid], ensure_ascii=True, separators=(",", ":"))
        self._changed = not sealed_file.write(self._file, text.encode())

    def _read(self) -> dict[str, list[Any]]:
        content = sealed_file.read(self._file)
        try:
            source, values = json.loads(content) if content else (None, {})
            intact = all(len(value) == 2 and len(value[0]) == 4 for value in values.values())
        except (ValueError, TypeError, AttributeError):
            return {}
        return values if intact and source == self._source else {}
