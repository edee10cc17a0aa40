"""The file of a study: a journal that the search and its trials append to."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.study import Study

NAME = "search"  # of the one study in the file


def create(file: Path, directions: list[str]) -> Study:
    """The study in the file, created where there is none."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=_storage(file), study_name=NAME, directions=directions, load_if_exists=True
    )


def load(file: Path, pruner: Any) -> Study:
    """The study in the file, opened by one of its trials: it draws nothing."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler()
    return optuna.load_study(
        storage=_storage(file), study_name=NAME, sampler=sampler, pruner=pruner
    )


def _storage(file: Path) -> Any:
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    return JournalStorage(JournalFileBackend(str(file), lock_obj=_Lock(file)))  # ty: ignore[invalid-argument-type]


class _Lock:
    """The lock of the journal, freed by the kernel if its owner dies; repairs a truncated end."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock; then cut off a line that a killed process left incomplete."""
        lock = os.open(f"{self.file}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX)
        self._handle = lock
        with open(self.file, "rb+") as journal:
            size = journal.seek(0, os.SEEK_END)
            if size:
                journal.seek(size - 1)
                if journal.read(1) != b"\n":
                    journal.seek(0)
                    journal.truncate(journal.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Free the lock."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
