"""2: SIGKILL before each single system call of a save, and in the middle of its writes."""

import re
import resource
import signal
from pathlib import Path

import pytest

from tests.faults import forks
from tests.faults.conftest import times
from tests.faults.failpoints import before_changes, die_at, tell
from tests.faults.saving import Saver, judged, staged
from tinyflux_pl.checkpoints.manifest import MANIFEST, STATE, WEIGHTS

# In the order of a save; of each the first change after the one before it whose line matches.
NAMED = {
    "open": r"os\.mkdir .*\.part$",
    "state": rf"open .*{re.escape(STATE)}$",
    "fsync of a file": rf"fsync .*\.part/{re.escape(WEIGHTS)}$",
    "manifest": rf"open .*{re.escape(MANIFEST)}$",
    "fsync of the manifest": rf"fsync .*\.part/{re.escape(MANIFEST)}$",
    "fsync of the folder": r"fsync .*checkpoints/[^/]*\.part$",
    "rename": r"os\.rename .*-> .*step_0000003$",
    "fsync of its parent": r"fsync .*/checkpoints$",
    "prune": r"os\.rename .*step_0000001 -> .*$",
    "half pruned": rf"os\.remove {re.escape(MANIFEST)}$",
}


def prepared(folder: Path) -> Saver:
    """Two checkpoints, the older to be displaced by a third, and files of a killed writer."""
    saver = Saver(folder, background=False, side=64)
    for step in (1, 2):
        saver.save(step)
    (folder / ".step_0000003.dead.part").mkdir()
    (folder / ".step_0000003.dead.part" / WEIGHTS).write_bytes(b"half of it")
    return saver


def third(folder: Path, background: bool, act) -> None:
    """In a child: save step 3 while `act` watches."""
    saver = Saver(folder, background, side=64)
    saver.step = saver.schedule._last_step = 2
    before_changes(folder, act)
    saver.save(3)
    saver.finish()


def survives(folder: Path) -> bool:
    """The old or the new checkpoint is valid, and the next save succeeds."""
    step = judged(folder).step
    next_saver = Saver(folder, background=False, side=64)
    next_saver.save(4)
    return step in (2, 3) and judged(folder).step == 4 and not staged(folder)


def named(changes: list[str]) -> list[int]:
    """Where in the list the named points are; a missing one is an error, as is one out of order."""
    failpoints: list[int] = []
    for name, what in NAMED.items():
        later = (
            i
            for i, line in enumerate(changes)
            if i > max(failpoints, default=-1) and re.search(what, line)
        )
        failpoint = next(later, None)
        assert failpoint is not None, f"no {name!r} after the points before it:\n" + "\n".join(
            changes
        )
        failpoints.append(failpoint)
    return failpoints


@pytest.mark.parametrize("background", [True, False])
def test_a_save_killed_before_any_change_leaves_a_valid_checkpoint(tmp_path, figure, background):
    prepared(tmp_path / "seen" / "checkpoints")
    seen = forks.run(
        lambda: third(tmp_path / "seen" / "checkpoints", background, tell), tmp_path / "log"
    )
    assert seen.code == 0, seen.printed
    changes = re.findall(r"^change \d+ (.*)$", seen.printed, re.MULTILINE)
    points, passed = named(changes), set()
    tried = [i for i in range(len(changes)) if i in points or i % times(4, 1) == 0]
    for i in tried:
        folder = tmp_path / str(i) / "checkpoints"
        prepared(folder)
        ended = forks.run(
            lambda f=folder, i=i: third(f, background, die_at(lambda n, *_: n == i)),
            tmp_path / "log",
        )
        assert ended.code == -signal.SIGKILL, ended.printed
        if survives(folder):
            passed.add(i)
    where = "in a thread" if background else "in training"
    figure(2, f"kill at a named point, {where}", len(passed & set(points)), len(NAMED))
    figure(2, f"kill before each change to the disk, {where}", len(passed), len(tried))


def test_a_save_killed_during_a_write_leaves_a_valid_checkpoint(tmp_path, figure):
    prepared(tmp_path / "seen" / "checkpoints")
    size = (tmp_path / "seen" / "checkpoints" / "step_0000002" / WEIGHTS).stat().st_size
    # claiming space for the weights; within the state
    tried, passed = (size - 1, size + 100, size * 3 // 2), 0
    for limit in tried:
        folder = tmp_path / str(limit) / "checkpoints"
        prepared(folder)

        def work(folder=folder, limit=limit):
            # the kernel then kills whoever writes beyond the limit
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            third(folder, True, lambda *_: None)

        ended = forks.run(work, tmp_path / "log")
        assert ended.code == -signal.SIGXFSZ, ended.printed
        damaged = {p.name: p.stat().st_size for p in folder.glob(".*.part/*")}
        assert damaged.get(STATE) == limit or WEIGHTS not in damaged, (
            f"not in the middle: {damaged}"
        )
        passed += survives(folder)
    figure(2, "kill in the middle of a write", passed, len(tried))
