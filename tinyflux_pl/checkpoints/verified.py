"""Which checkpoints were found whole already, so that a save does not read gigabytes again to know it."""

from __future__ import annotations

from pathlib import Path

from tinyflux_pl.checkpoints import directory

Stamp = tuple[tuple[str, int, int, int], ...]


class Verified:
    """Whether a checkpoint is whole: read and hashed at the first question, and again once a file of it is another.

    Another: in name, inode, size or time of change. Bytes that rot on the disk without any of these are found by
    whoever reads the checkpoint (resume=auto, `extract.py doctor=true`), not by a second question here.
    """

    def __init__(self) -> None:
        self._found: dict[Path, Stamp] = {}

    def __call__(self, path: Path) -> bool:
        """Whether a whole checkpoint is there."""
        stamp = _stamp(path)
        if not stamp or self._found.get(path) != stamp:
            self._found.pop(path, None)
            if not directory.verifies(path):
                return False
            self._found[path] = stamp
        return True


def _stamp(path: Path) -> Stamp:
    said = ((file.name, file.stat()) for file in sorted(path.glob("*")))
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in said)
