"""The bytes of the regular file at a checked path, even if it is swapped meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path


def read_regular(path: str | Path, most: int) -> bytes:
    """All bytes of a regular file of at most `most` bytes, at a path without links.

    No link is followed at its end, a pipe does not block, and what was opened must still be what
    lies there: a folder above it may have become a link. Raises OSError: EFBIG with the size as its
    text for a longer file, EINVAL for what is not regular, ELOOP for a link or a swapped file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        opened = os.fstat(handle)
        if not stat.S_ISREG(opened.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if opened.st_size > most:
            raise OSError(errno.EFBIG, f"{opened.st_size:,} bytes, more than {most:,}")
        there = os.lstat(path)
        same = (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)
        if not same or not _reached_without_links(handle, path):
            raise OSError(errno.ELOOP, "swapped for another file or a link while it was opened")
        with open(handle, "rb", closefd=False) as file:
            content = file.read(most + 1)
    finally:
        os.close(handle)
    if len(content) > most:  # it grew
        raise OSError(errno.EFBIG, f"more than {most:,} bytes")
    return content


def _reached_without_links(handle: int, path: str | Path) -> bool:
    """True if an open file lies at its path, without links on the way."""
    with suppress(OSError):  # where there is no /proc
        if os.readlink(f"/proc/self/fd/{handle}") == os.path.abspath(path):
            return True
    folder = os.path.dirname(os.path.abspath(path))
    return os.path.realpath(folder) == folder
