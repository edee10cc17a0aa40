"""Remember verified checkpoints, so that a save does not hash gigabytes again."""

from __future__ import annotations

from pathlib import Path

from tinyflux_pl.checkpoints import directory

Stamp = tuple[tuple[str, int, int, int], ...]


class VerifiedCache:
    """Callable: True for a valid checkpoint; unchanged files are hashed only once.

    Files count as changed by name, inode, size or modification time. Silent corruption on the disk
    is detected when the checkpoint is read (resume=auto, `extract.py doctor=true`), not by a second
    call.
    """

    def __init__(self) -> None:
        self._stamps: dict[Path, Stamp] = {}

    def __call__(self, path: Path) -> bool:
        """True if `path` is a valid checkpoint."""
        stamp = _stamp(path)
        if not stamp or self._stamps.get(path) != stamp:
            self._stamps.pop(path, None)
            if not directory.verifies(path):
                return False
            self._stamps[path] = stamp
        return True


def _stamp(path: Path) -> Stamp:
    files = ((file.name, file.stat()) for file in sorted(path.glob("*")))
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in files)
