"""Unused files below caches: of stopped rebuilds, replaced stores and killed writers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyflux_pl.app.caches.replacement import NEW, OLD
from tinyflux_pl.app.reporting import tables
from tinyflux_pl.cache import store_files
from tinyflux_pl.cache.sealed_json import MANIFEST_FILE
from tinyflux_pl.cache.verify import is_store
from tinyflux_pl.core import interpreter
from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.file_lock import FILLING, locked

STOPPED = "of a rebuild that was stopped"
REPLACED = "replaced by a rebuild"
PARTIAL = "left by a writer that was killed"
EXCESS = "of an earlier, longer store"


@dataclass(frozen=True)
class Leftover:
    """Unused files of one store, the reason, and their size when they were listed."""

    store: Path
    reason: str
    files: tuple[Path, ...]
    bytes: int

    @property
    def is_store(self) -> bool:
        """True if these are all files of the store."""
        return self.reason in (STOPPED, REPLACED)


def leftovers(stores: Iterable[Path]) -> list[Leftover]:
    """The unused files of these stores; files of other programs are never listed.

    A replaced store whose successor is missing is the only copy, and none.
    """
    listed = []
    for store in stores:
        reason = _superseded(store)
        candidates = (
            {reason: store_files.files_of(store)}
            if reason
            else {
                PARTIAL: store_files.partial_files(store),
                EXCESS: store_files.excess_shards(store),
            }
        )
        for why, files in candidates.items():
            if files:
                size = sum(file.stat().st_size for file in files)
                listed.append(Leftover(store, why, tuple(files), size))
    return listed


def prune(listed: Sequence[Leftover]) -> dict[Leftover, str]:
    """Remove them; returns those that were kept, with the reason.

    Each is listed again under the locks that its writers hold, so that nothing in use is removed.
    """
    remaining = {}
    for leftover in listed:
        folder = leftover.store.parent
        try:
            with locked(folder), locked(folder, FILLING), locked(leftover.store):
                current = [
                    new for new in leftovers([leftover.store]) if new.reason == leftover.reason
                ]
                for new in current:
                    _remove(new)
        except DataError as error:
            remaining[leftover] = error.what
            continue
        except OSError as error:
            remaining[leftover] = f"cannot be removed: {error.strerror}"
            continue
        if leftover.is_store and leftover.store.exists():
            names = ", ".join(sorted(path.name for path in leftover.store.iterdir())[:5])
            remaining[leftover] = f"its own files are gone; it holds others: {names}"
    return remaining


def show(listed: Sequence[Leftover], remaining: dict[Leftover, str] | None, doctor: object) -> None:
    """A table of the leftovers with their sizes; `remaining` is None before a removal."""
    if not listed:
        return
    rows = []
    for each in listed:
        files = f"{len(each.files):,} file{'s' * (len(each.files) > 1)}"
        text = f"{files} {each.reason}, {each.bytes / 2**20:,.1f} MiB"
        if remaining is not None and each in remaining:
            text = f"{text}; kept: {remaining[each]}"
        rows.append((str(each.store), text))
    if remaining is not None:
        tables.show("removed: no run needs them", rows)
        return
    tables.show("no run needs these", rows)
    tables.line(f"to remove them: {interpreter.command('extract.py')} doctor={doctor} prune=true")


def _superseded(store: Path) -> str:
    """The reason why a whole store is not needed; "" if it is."""
    for suffix, reason in ((NEW, STOPPED), (OLD, REPLACED)):
        if store.name.endswith(suffix):
            root = store.with_name(store.name.removesuffix(suffix))
            return reason if root.is_dir() and is_store(root) else ""
    return ""


def _remove(leftover: Leftover) -> None:
    """Remove the files, the manifest last, so that the rest is recognised as part of a store."""
    for file in sorted(leftover.files, key=lambda file: file.name == MANIFEST_FILE):
        file.unlink(missing_ok=True)
    if not leftover.is_store:
        return
    for folder in [*(path for path in leftover.store.iterdir() if path.is_dir()), leftover.store]:
        if not any(folder.iterdir()):
            folder.rmdir()
