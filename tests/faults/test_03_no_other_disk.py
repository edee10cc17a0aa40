"""3: as 1, with TMPDIR on another file system; and not a byte passes through it."""

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest

from tests.faults.conftest import times
from tests.faults.saving import Saver, accepted, judged, killed_while_saving

MEMORY = Path("/dev/shm")  # where there is none, only the folder that does not exist is tried


@pytest.fixture(params=["memory", "missing"])
def elsewhere(request, tmp_path, monkeypatch):
    """TMPDIR on another file system, or a missing folder that any use would reveal."""
    if request.param == "memory":
        if not MEMORY.is_dir() or MEMORY.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("no other file system to put TMPDIR on")
        folder = Path(tempfile.mkdtemp(dir=MEMORY))
    else:
        folder = tmp_path / "missing"
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    if folder.exists():
        os.rmdir(folder)


def test_a_save_works_with_the_temporary_folder_on_another_disk(elsewhere, tmp_path, figure):
    tried = times(6, 100)
    chance, passed = random.Random(3), 0
    folder = tmp_path / "checkpoints"
    started = time.monotonic()
    Saver(folder, background=False).save(1)
    one_save = 2 * (time.monotonic() - started)
    for i in range(tried):
        background, before = i % 2 == 0, judged(folder).step
        ended = killed_while_saving(folder, background, tmp_path / "log", chance, one_save)
        assert ended.code == -signal.SIGKILL, ended.printed
        missing = max(before, accepted(ended.printed)) - judged(folder).step
        passed += missing <= int(background) and (
            not elsewhere.exists() or not any(elsewhere.iterdir())
        )
    assert judged(folder).step > tried / 2
    figure(
        3, f"SIGKILL with TMPDIR {'in memory' if elsewhere.exists() else 'missing'}", passed, tried
    )
