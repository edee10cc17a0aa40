"""Atomically written folders, and removal of the leftovers of killed writers."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from tinyflux_pl.core import files
from tinyflux_pl.core.disk_full import disk_full_explained


@contextmanager
def staged(path: str | Path, needed: int = 0) -> Generator[Path]:
    """Yield a folder beside `path`.

    On success fsync its files and rename it into place, else remove it.

    A folder already at `path` stays until the new one is complete; during the swap it is called
    `<name>.replaced-...`. Raises DiskFull, which says that `needed` bytes were to be written.
    """
    path = Path(path)
    with disk_full_explained(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        staging, lock = _locked_folder(path)
        try:
            yield staging
            for file in sorted(staging.rglob("*")):
                if file.is_file():
                    files.fsync_file(file)
            files.fsync_directory(staging)
            replaced = (
                path.with_name(f"{path.name}.replaced-{uuid.uuid4().hex[:8]}")
                if path.exists()
                else None
            )
            if replaced:
                os.rename(path, replaced)
            os.rename(staging, path)
            files.fsync_directory(path.parent)
            if replaced:
                remove_tree(replaced)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            os.close(lock)


def remove_tree(path: Path) -> None:
    """Remove a folder atomically; files that cannot be deleted yet are left to `remove_leftovers`.

    (A network file system keeps files that another process has open.)
    """
    hidden = files.staging_path(path)
    os.rename(path, hidden)
    files.fsync_directory(path.parent)
    shutil.rmtree(hidden, ignore_errors=True)


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove the staged folders of writers that were killed.

    A living writer holds its folder's lock.
    """
    removed = []
    for staging in Path(folder).glob(".*.part"):
        if not staging.is_dir():
            continue
        lock = os.open(staging, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # it is being written, or this file system has no locks
            continue
        else:
            shutil.rmtree(staging, ignore_errors=True)
            removed.append(staging)
        finally:
            os.close(lock)
    return removed


def _locked_folder(path: Path) -> tuple[Path, int]:
    """Create a folder next to `path` and lock it; the kernel frees the lock of a dead process."""
    while True:
        staging = files.staging_path(path)
        staging.mkdir()
        lock = os.open(staging, os.O_RDONLY)
        # a file system without locks: `remove_leftovers` then leaves every folder alone
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if staging.exists():  # else another writer took it, not locked yet, for a leftover
            return staging, lock
        os.close(lock)
